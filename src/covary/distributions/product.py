"""Independent densities side by side on one flat action, with the contract of each of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints, kl_divergence, register_kl

from covary.distributions.box_normal import Drawn


class Part(Protocol):
    """What a Product needs of a part: BoxNormal, Beta, Categorical, Choices and Product have it."""

    has_rsample: bool

    @property
    def batch_shape(self) -> torch.Size: ...
    @property
    def event_shape(self) -> torch.Size: ...
    @property
    def noise_shape(self) -> torch.Size: ...
    @property
    def support(self) -> Any: ...
    @property
    def deterministic_action(self) -> Tensor: ...
    def noise(self, sample_shape: Any = (), generator: torch.Generator | None = None) -> Tensor: ...
    def sample_latent(self, sample_shape: Any = (), *, noise: Tensor | None = None) -> Tensor: ...
    def to_action(self, latent: Tensor) -> Tensor: ...
    def log_prob(self, value: Tensor) -> Tensor: ...
    def log_prob_latent(self, latent: Tensor, *, jacobian: bool = True) -> Tensor: ...
    def entropy(self) -> Tensor: ...
    def expand(self, batch_shape: Any) -> Any: ...


class _Every(constraints.Constraint):
    """Each part's columns lie in its support."""

    event_dim = 1

    def __init__(self, product: Product) -> None:
        self.product = product
        self.is_discrete = all(part.support.is_discrete for part in product.parts)

    def check(self, value: Tensor) -> Tensor:
        pieces = self.product.split(value)
        return torch.stack([p.support.check(x) for p, x in zip(self.product.parts, pieces, strict=True)]).all(0)

    def __repr__(self) -> str:
        return " x ".join(repr(part.support) for part in self.product.parts)


class Product(Distribution):
    """Parts that are independent of each other, each on some columns of an action (D,).

    Whole numbers beside floating-point ones become such; a part that is one choice has one column.

    Args:
        parts: densities of one batch shape B*, with event shape () or (d,).
        columns: for each part the columns of the action that it has; one after another when left out.

    Raises:
        ValueError: no part, batch shapes that differ, columns that are not each of D once (unless validate_args is
            False).
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 (each part checks its own)

    def __init__(
        self,
        parts: Sequence[Part],
        columns: Sequence[Sequence[int] | Tensor] | None = None,
        *,
        validate_args: bool | None = None,
    ) -> None:
        self.parts = tuple(parts)
        if not self.parts or any(part.batch_shape != self.parts[0].batch_shape for part in self.parts):
            raise ValueError(
                "A product has parts, all of one batch shape.\n"
                f"  given: {', '.join(str(tuple(part.batch_shape)) for part in self.parts) or 'none'}"
            )
        self._widths = [part.event_shape.numel() for part in self.parts]
        total = sum(self._widths)
        self._columns = None if columns is None else tuple(torch.as_tensor(each).long() for each in columns)
        super().__init__(self.parts[0].batch_shape, torch.Size((total,)), validate_args=validate_args)
        if self._validate_args and self._columns is not None:
            given = [each.tolist() for each in self._columns]
            if [len(each) for each in given] != self._widths or sorted(torch.cat(self._columns).tolist()) != list(
                range(total)
            ):
                raise ValueError(
                    f"The columns of a product's parts are each of the {total} once, as many as each part has.\n"
                    f"  given: {given} for parts of {self._widths}"
                )
        self._back = None if self._columns is None else torch.cat(self._columns).argsort()

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        return all(part.has_rsample for part in self.parts)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Product:
        return Product(
            [part.expand(batch_shape) for part in self.parts], self._columns, validate_args=self._validate_args
        )

    @property
    def support(self) -> constraints.Constraint:
        return _Every(self)

    # --- between the whole and its parts

    @property
    def columns(self) -> list[list[int]]:
        """For each part, its columns of the action."""
        if self._columns is not None:
            return [each.tolist() for each in self._columns]
        return [each.tolist() for each in torch.arange(sum(self._widths)).split(self._widths)]

    def split(self, x: Tensor) -> list[Tensor]:
        """(..., D) -> for each part (..., d), or (...) of one choice."""
        columns = self._columns
        pieces = x.split(self._widths, -1) if columns is None else [x[..., each] for each in columns]
        return [piece if part.event_shape else piece[..., 0] for piece, part in zip(pieces, self.parts, strict=True)]

    def join(self, pieces: Sequence[Tensor]) -> Tensor:
        """What `split` took apart."""
        rows = [x if part.event_shape else x.unsqueeze(-1) for x, part in zip(pieces, self.parts, strict=True)]
        whole = torch.cat(rows, -1)
        return whole if self._back is None else whole[..., self._back]

    # --- sampling and scoring

    @property
    def noise_shape(self) -> torch.Size:
        return torch.Size((sum(part.noise_shape.numel() for part in self.parts),))

    def noise(self, sample_shape: Any = (), generator: torch.Generator | None = None) -> Tensor:
        """(S*, B*, W) what one draw is made of: that of each part, one after another."""
        pieces = [part.noise(sample_shape, generator) for part in self.parts]
        return torch.cat(
            [x if part.noise_shape else x.unsqueeze(-1) for x, part in zip(pieces, self.parts, strict=True)], -1
        )

    def _split_noise(self, noise: Tensor, sample_shape: Any) -> list[Tensor]:
        shape = torch.Size((*sample_shape, *self.batch_shape, *self.noise_shape))
        if noise.shape != shape:
            raise ValueError(f"noise is (S*, B*, W) = {tuple(shape)}.\n  given: {tuple(noise.shape)}")
        pieces = noise.split([part.noise_shape.numel() for part in self.parts], -1)
        return [x if part.noise_shape else x[..., 0] for x, part in zip(pieces, self.parts, strict=True)]

    def sample_latent(self, sample_shape: Any = (), *, noise: Tensor | None = None) -> Tensor:
        """(S*, B*, D) the latent of an action; `to_action` maps it."""
        noise = self.noise(sample_shape) if noise is None else noise
        pieces = self._split_noise(noise, sample_shape)
        return self.join([p.sample_latent(sample_shape, noise=x) for p, x in zip(self.parts, pieces, strict=True)])

    def to_action(self, latent: Tensor) -> Tensor:
        """(..., D) latent -> action."""
        return self.join([part.to_action(x) for part, x in zip(self.parts, self.split(latent), strict=True)])

    def draw(self, sample_shape: Any = (), *, noise: Tensor | None = None) -> Drawn:
        """An action, its latent and its log-probability from one forward map; noise: as `noise` draws it."""
        latent = self.sample_latent(sample_shape, noise=noise)
        return Drawn(self.to_action(latent), latent, self.log_prob_latent(latent))

    def sample_and_log_prob(self, sample_shape: Any = (), *, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(S*, B*, D) action and (S*, B*) log-probability."""
        action, _, log_prob = self.draw(sample_shape, noise=noise)
        return action, log_prob

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with torch.no_grad():
            return self.draw(sample_shape).action

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        if not self.has_rsample:
            raise NotImplementedError(
                "A choice has no reparametrised sample.\n  fix: `sample_and_log_prob` and the score function's gradient"
            )
        return self.draw(sample_shape).action

    def log_prob(self, value: Tensor) -> Tensor:
        """(S*, B*, D) action -> (S*, B*)."""
        if self._validate_args:
            self._validate_sample(value)
        pieces = self.split(value)
        return _sum([part.log_prob(x) for part, x in zip(self.parts, pieces, strict=True)])

    def log_prob_latent(self, latent: Tensor, *, jacobian: bool = True) -> Tensor:
        """Log-probability of the action whose latent is given. (S*, B*, D) -> (S*, B*)."""
        if self._validate_args and latent.shape[-1:] != self.event_shape:
            raise ValueError(f"latent is (S*, B*, D), D = {self.event_shape[0]}.\n  given: {tuple(latent.shape)}")
        pieces = self.split(latent)
        return _sum([p.log_prob_latent(x, jacobian=jacobian) for p, x in zip(self.parts, pieces, strict=True)])

    def entropy(self) -> Tensor:
        """(B*,) nats. Raises where a part does."""
        return _sum([part.entropy() for part in self.parts])

    # --- points: those of each part

    @property
    def mean(self) -> Tensor:
        return self._points("mean")

    @property
    def median(self) -> Tensor:
        return self._points("median")

    @property
    def mode(self) -> Tensor:
        return self._points("mode")

    @property
    def variance(self) -> Tensor:
        return self._points("variance")

    @property
    def deterministic_action(self) -> Tensor:
        """(B*, D) what a deterministic policy executes."""
        return self._points("deterministic_action")

    def _points(self, name: str) -> Tensor:
        return self.join([getattr(part, name) for part in self.parts])

    def __repr__(self) -> str:
        return f"Product({', '.join(map(repr, self.parts))})"


def _sum(terms: Sequence[Tensor]) -> Tensor:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


@register_kl(Product, Product)
def _kl(p: Product, q: Product) -> Tensor:
    same = [each.tolist() for each in p._columns or ()] == [each.tolist() for each in q._columns or ()]
    if not same or p._widths != q._widths:
        raise NotImplementedError("KL between products whose parts have other columns has no closed form.")
    return _sum([kl_divergence(a, b) for a, b in zip(p.parts, q.parts, strict=True)])  # type: ignore[arg-type]
