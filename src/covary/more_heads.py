"""The other last layers of a policy: a Beta on bounded dimensions, several choices at once, and parts side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from covary.distributions import Beta, Choices, Geometry, Product
from covary.errors import UsageError
from covary.heads import DEFAULT_SHARE, SMALL, CategoricalHead, GaussianHead, check_alike, each_of
from covary.nets import linear

MOST_SHAPE = 1e8  # of a Beta: its deviation is then below the last bit of float32
NARROWEST = 0.5 / math.sqrt(2 * MOST_SHAPE + 3)  # the deviation of alpha = beta = 1 + MOST_SHAPE, 3.54e-5 of the width


class BetaHead(nn.Module):
    """(B, F) -> Beta, alpha and beta = 1 + softplus(.) of one linear layer (Chou, Maturana & Scherer 2017, sec. 4.2).

    Both depend on the state, since neither is a mean or a deviation. The start is centred, with a standard deviation of
    `init_std` of the width.
    """

    uniform_noise = False
    fixed = False

    def __init__(self, features: int, geometry: Geometry, init_std: float | tuple[float, ...] | None) -> None:
        super().__init__()
        d = geometry.dim
        self.geometry, self.seen = geometry, d
        self.out = linear(features, 2 * d, SMALL)
        start = [_start(std) for std in each_of(init_std, d)]
        with torch.no_grad():
            self.out.bias.copy_(torch.tensor([*start, *start]))

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """What `shape` draws are made of: standard normal numbers, (*shape, 32 D)."""
        one = torch.ones(self.geometry.dim)
        size = Beta(one, one, geometry=self.geometry, validate_args=False).noise_shape
        return torch.randn((*shape, *size), generator=generator, device=generator.device)

    def coordinates(self, latent: Tensor) -> Tensor:
        """(..., D) latents -> (..., D) what a critic sees of an action: [-1, 1] across the interval."""
        return torch.tanh(0.5 * latent)

    def forward(self, features: Tensor) -> Beta:
        alpha, beta = (1 + F.softplus(self.out(features).clamp(max=MOST_SHAPE))).chunk(2, -1)
        return Beta(alpha, beta, geometry=self.geometry, validate_args=False)

    @torch.no_grad()
    def start_from(self, other: BetaHead) -> None:
        check_alike(self, other, self.geometry == getattr(other, "geometry", None))
        self.load_state_dict(other.state_dict())


def _start(std: float | None) -> float:
    """The output at which alpha = beta and the deviation is this share of the width: Var = 1 / (4 (2 alpha + 1))."""
    share = DEFAULT_SHARE if std is None else std
    if share < NARROWEST:  # no output beyond would learn
        raise UsageError(
            f"policy.init_std is a share of the width, and a Beta is wider than {NARROWEST:.3g} of it.",
            given=share,
            fix=f'policy.init_std {DEFAULT_SHARE}, or another share; a Gaussian, bounds="squash", may be narrower',
        )
    above = (1 / (4 * share**2) - 1) / 2 - 1
    if above <= 0:
        raise UsageError(
            "policy.init_std is a share of the width, and a Beta with one peak is narrower than a uniform law, 0.289.",
            given=share,
            fix=f"policy.init_std {DEFAULT_SHARE}, or another share below 0.289",
        )
    return above + math.log(-math.expm1(-above))  # the inverse of softplus


class ChoicesHead(nn.Module):
    """(B, F) -> Choices: one linear layer gives a logit for each choice of each dimension; of a Bernoulli one, that of
    1 against 0.

    Args:
        sizes: (D,) how many choices each dimension has; None for D Bernoullis.
    """

    uniform_noise = True
    fixed = False
    cells: Tensor
    constants: Tensor

    def __init__(self, features: int, dims: int, sizes: Sequence[int] | None) -> None:
        super().__init__()
        self.dims, self.sizes = dims, None if sizes is None else tuple(sizes)
        self.seen = 2 * dims if sizes is None else dims * max(sizes)  # numbers that a critic sees of an action
        numbers = dims if sizes is None else sum(sizes)
        self.logits = linear(features, numbers, SMALL)
        # Cell (i, k) is an output of the layer, the constant after them (-inf) where there is no such choice, or the
        # one after that (0), the logit of a Bernoulli's 0.
        if sizes is None:
            cells = np.stack([np.full(dims, numbers + 1), np.arange(dims)], -1)
        else:
            cells = np.full((dims, max(sizes)), numbers)
            for row, first, size in zip(cells, np.cumsum([0, *sizes]), sizes, strict=False):
                row[:size] = np.arange(first, first + size)
        self.register_buffer("cells", torch.as_tensor(cells), persistent=False)
        self.register_buffer("constants", torch.tensor([-torch.inf, 0.0]), persistent=False)

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """What `shape` draws are made of: uniform numbers, (*shape, D)."""
        return torch.rand((*shape, self.dims), generator=generator, device=generator.device)

    def coordinates(self, latent: Tensor) -> Tensor:
        """(..., D) choices -> for each dimension one number that is 1, all others 0, one dimension after another."""
        return F.one_hot(latent.long(), self.seen // self.dims).flatten(-2).to(self.logits.weight.dtype)

    def forward(self, features: Tensor) -> Choices:
        out = self.logits(features)
        constants = self.constants.expand(*out.shape[:-1], 2)
        return Choices(torch.cat([out, constants], -1)[..., self.cells], validate_args=False)

    @torch.no_grad()
    def start_from(self, other: ChoicesHead) -> None:
        check_alike(self, other, self.sizes == getattr(other, "sizes", None))
        self.load_state_dict(other.state_dict())


class ProductHead(nn.Module):
    """(B, F) -> Product: heads on the same features, each for some columns of the action.

    Args:
        columns: for each part, its columns of the (D,) action.
        geometry: of the whole action, where it is a Box; each Beta as a squashed dimension.
    """

    def __init__(
        self, parts: Sequence[nn.Module], columns: Sequence[Sequence[int]], geometry: Geometry | None = None
    ) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.geometry = geometry
        heads: list[Any] = list(parts)
        self.seen, self.fixed = sum(head.seen for head in heads), all(head.fixed for head in heads)
        for i, each in enumerate(columns):  # as buffers, to be on the device already
            self.register_buffer(f"columns{i}", torch.tensor(list(each), dtype=torch.int64), persistent=False)

    @property
    def columns(self) -> list[Tensor]:
        """For each part, its columns of the action."""
        return [getattr(self, f"columns{i}") for i in range(len(self.parts))]

    @property
    def uniform_noise(self) -> Any:
        """Which numbers of the noise are uniform: (W,)."""
        one = torch.Generator()
        widths = [max(1, math.prod(part.noise((), one).shape)) for part in self.parts]  # type: ignore[operator]
        return np.repeat([part.uniform_noise for part in self.parts], widths)

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """What `shape` draws are made of: that of each part, one after another."""
        pieces = [part.noise(shape, generator) for part in self.parts]  # type: ignore[operator]
        return torch.cat([x if x.dim() > len(shape) else x.unsqueeze(-1) for x in pieces], -1)

    def coordinates(self, latent: Tensor) -> Tensor:
        """What a critic sees of each part, one after another."""
        seen = [part.coordinates(latent[..., c]) for part, c in zip(self.parts, self.columns, strict=True)]  # type: ignore[operator]
        return torch.cat(seen, -1)

    def forward(self, features: Tensor) -> Product:
        return Product([part(features) for part in self.parts], self.columns, validate_args=False)

    @torch.no_grad()
    def start_from(self, other: ProductHead) -> None:
        mine, its = ([c.tolist() for c in getattr(head, "columns", ())] for head in (self, other))
        check_alike(self, other, mine == its)
        for part, theirs in zip(self.parts, other.parts, strict=True):
            part.start_from(theirs)  # type: ignore[operator]


Head = GaussianHead | CategoricalHead | BetaHead | ChoicesHead | ProductHead
