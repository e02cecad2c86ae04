"""The last layer of a policy: from features to the parameters of a density, for any covariance and geometry.

The covariance of the latent is L L^T with L = diag(std) C, where the rows of C, lower triangular with a positive
diagonal, have norm 1: `std` is each dimension's own whatever the correlations are, and nothing the network outputs can
make it indefinite. One of low rank has rows (v_i, c_i) of norm 1, u_i = loc_i + std_i (c_i eps_i + v_i . eta).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from covary.distributions import Bounds, BoxNormal, Categorical, Geometry
from covary.errors import UsageError, check_choice, check_sizes, check_switches
from covary.nets import Activation, Init, linear, orthogonal

Word = Literal[Bounds, "beta"]
Covariance = Literal["fixed", "diagonal", "lowrank", "full"]

SMALL = 0.01  # gain of the last layer: the first policy hardly depends on the observation
FIRST_COUPLING = 0.1  # size of the first v: at 0, where correlations have no gradient, they would stay
MOST_COUPLING = 1000.0  # beside the 1 of a dimension's own noise, so that no correlation is 1 in float32


@dataclass(frozen=True)
class PolicyConfig:
    """How the policy is made. The same names stand behind `--policy.` on the command line."""

    covariance: Covariance = "diagonal"
    """of the Gaussian latent: fixed; learned and diagonal, lowrank (each dimension's own noise and `rank` numbers that
    all share) or full (a Cholesky factor)"""
    rank: int | None = None
    """of covariance="lowrank": how many shared numbers, fewer than dimensions; 1 when left out"""
    state_dependent: bool = False
    """whether the learned covariance is an output of the network or a parameter of its own"""
    bounds: Word | tuple[Word, ...] = "auto"
    """one word, or one for each dimension: auto takes each as it is; squash (sigmoid), clip (censored), mean (only the
    mean is kept inside; the unclipped Gaussian is scored), free, beta (a Beta law of its own, of which both parameters
    depend on the state)"""
    periodic: tuple[int, ...] = ()
    """dimensions of the flattened Box that are angles, so that low and high are one point"""
    init_std: float | tuple[float, ...] | None = None
    """standard deviation of the first policy, one or one for each dimension: a share of the width for finite
    dimensions (default 0.25), raw units for others (default 1)"""
    mean_scale: float = 1.0
    """how far one unit of the network's output moves the mean: in units of the latent, or in half widths of a finite
    dimension that is not squashed. Not of an angle, a mean that is kept inside or a Beta, whose outputs have a scale"""
    covariance_matrix: tuple[float, ...] | None = None
    """the matrix of covariance="fixed": its D variances, or its D * D entries row by row, in units of the latent (those
    of the action for mean, clip and free; radians for wrapped); dimensions with bounds beta have no place in it"""
    hidden: tuple[int, ...] = (64, 64)
    """widths of the hidden layers"""
    activation: Activation = "tanh"
    """of the hidden layers"""
    layer_norm: bool = False
    """whether each hidden layer is standardised before its activation, by nothing that is learned"""
    init: Init = "orthogonal"
    """weights at the start: orthogonal (Saxe 2014), or sparse: nine in ten are 0 (Elsayed 2024)"""
    normalize_obs: bool = True
    """whether observations are standardised by their running mean and deviation"""

    def __post_init__(self) -> None:
        for name in ("periodic", "hidden"):
            object.__setattr__(self, name, _tuple(getattr(self, name)))
        for name in ("bounds", "init_std", "covariance_matrix"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str | int | float):
                flat = _tuple(np.asarray(value).reshape(-1).tolist())
                object.__setattr__(self, name, flat[0] if name != "covariance_matrix" and len(flat) == 1 else flat)
        check_switches(self, "policy.")
        check_choice("policy.covariance", self.covariance, get_args(Covariance))
        if self.rank is not None and self.covariance != "lowrank":
            raise UsageError(
                "policy.rank is of a covariance of low rank.",
                given=f'rank {self.rank} with covariance="{self.covariance}"',
                fix='covariance="lowrank", or leave rank out',
            )
        if self.rank is not None:
            check_sizes("policy.rank", (self.rank,))
        check_choice("policy.activation", self.activation, get_args(Activation))
        check_choice("policy.init", self.init, get_args(Init))
        for word in (self.bounds,) if isinstance(self.bounds, str) else self.bounds:
            check_choice("policy.bounds", word, get_args(Word))
        check_sizes("policy.hidden", self.hidden)
        stds = (self.init_std,) if isinstance(self.init_std, int | float) else self.init_std or ()
        if not all(math.isfinite(s) and s > 0 for s in stds):
            raise UsageError("policy.init_std must be positive.", given=self.init_std)
        scale: Any = self.mean_scale
        if type(scale) not in (int, float) or not 1e-6 <= scale <= 1e6:
            raise UsageError("policy.mean_scale is a number from 1e-6 to 1e6.", given=repr(scale))
        object.__setattr__(self, "mean_scale", float(scale))
        if self.covariance_matrix is not None and self.covariance != "fixed":
            raise UsageError(
                "policy.covariance_matrix is the matrix of a fixed covariance.",
                given=f'covariance="{self.covariance}"',
                fix='covariance="fixed"; or init_std, for where a learned one starts',
            )


def _tuple(value: Any) -> tuple[Any, ...]:
    return (value,) if isinstance(value, int | float | str) else tuple(value)


def check_alike(head: nn.Module, other: nn.Module, same: bool = True) -> None:
    """Raises UsageError unless a head can start from another: one of its own class on the same dimensions."""
    if type(head) is not type(other) or not same:
        raise UsageError(
            "A policy can start from another only on the same action space, bounds and periodic dimensions.",
            given=f"a {type(other).__name__} there, a {type(head).__name__} here",
            fix="the same policy.bounds",
        )


class CategoricalHead(nn.Module):
    """(B, F) -> Categorical over K choices."""

    uniform_noise = True

    def __init__(self, features: int, choices: int) -> None:
        super().__init__()
        self.logits = linear(features, choices, SMALL)
        self.seen = choices  # numbers that a critic sees of an action
        self.fixed = False

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """What `shape` draws are made of: uniform numbers of this shape."""
        return torch.rand(shape, generator=generator, device=generator.device)

    def coordinates(self, latent: Tensor) -> Tensor:
        """(...) choices -> (..., K) one of them 1, the others 0."""
        return nn.functional.one_hot(latent.long(), self.seen).to(self.logits.weight.dtype)

    def forward(self, features: Tensor) -> Categorical:
        return Categorical(self.logits(features), validate_args=False)

    @torch.no_grad()
    def start_from(self, other: CategoricalHead) -> None:
        check_alike(self, other)
        self.load_state_dict(other.state_dict())


class GaussianHead(nn.Module):
    """(B, F) -> BoxNormal.

    One linear layer gives, in this order, what makes loc (two numbers for a wrapped dimension: the vector whose angle
    it is) and, where the covariance depends on the state, log standard deviations and the couplings: those of C below
    its diagonal, or v before its rows are normalised, dimension by dimension.
    """

    uniform_noise = False
    log_std: Tensor
    coupling: Tensor
    base_log_std: Tensor
    kept_columns: Tensor
    angle_columns: Tensor
    offset: Tensor
    gain: Tensor
    origin: Tensor
    unit: Tensor
    cells: Tensor
    constants: Tensor
    matrix: Tensor | None

    def __init__(self, features: int, geometry: Geometry, config: PolicyConfig) -> None:
        super().__init__()
        d = geometry.dim
        self.geometry, self.config = geometry, config
        self.full = config.covariance == "full"
        self.fixed = config.covariance == "fixed"
        learned = not self.fixed
        self.rank = (config.rank or 1) if config.covariance == "lowrank" else 0
        if self.rank >= d:
            raise UsageError(
                f"policy.rank is below the number of dimensions, {d}.",
                given=f"rank {self.rank}",
                fix='covariance="full", which such a rank would be at more cost',
            )
        self.couplings = d * (d - 1) // 2 if self.full else d * self.rank
        if self.full or self.rank:
            geometry.check_full()
        self.per_state = config.state_dependent and learned
        spread = d + self.couplings if self.per_state else 0
        self.angles = geometry.columns("wrap")
        self.out = linear(features, d + len(self.angles) + spread, SMALL)
        self.seen = d + len(self.angles)  # numbers that a critic sees of an action

        # where a mean of 0 lies, and what one unit of it is worth
        words = (config.bounds,) * d if isinstance(config.bounds, str) else config.bounds
        words = words * d if len(words) == 1 else words
        self.kept = tuple(i for i, word in enumerate(words) if word == "mean" and geometry.kinds[i] != "wrap")
        # as tensors, since an index that is a list is copied to the device, and waited for, at every call
        self.register_buffer("kept_columns", torch.tensor(self.kept, dtype=torch.int64), persistent=False)
        self.register_buffer("angle_columns", torch.tensor(self.angles, dtype=torch.int64), persistent=False)
        start = [_start(geometry, i, 1.0 if i in self.kept else config.mean_scale) for i in range(d)]
        self.register_buffer("offset", torch.tensor([s[0] for s in start]), persistent=False)
        self.register_buffer("gain", torch.tensor([s[1] for s in start]), persistent=False)
        with torch.no_grad():  # a vector of norm 1 in the direction of the interval's centre, (cos pi, sin pi)
            self.out.bias[d + 0 : d + len(self.angles)] = 0.0
            self.out.bias[list(self.angles)] = -1.0

        scale = None if self.fixed else config.init_std  # a fixed one is noise, and tells nothing of the actions' scale
        origin, unit = np.transpose([_unit(geometry, i, _each(scale, i)) for i in range(d)])
        self.scaled = bool(origin.any() or (unit != 1).any())
        self.register_buffer("origin", torch.tensor(origin, dtype=torch.float32), persistent=False)
        self.register_buffer("unit", torch.tensor(unit, dtype=torch.float32), persistent=False)

        self.register_buffer("base_log_std", torch.tensor(_initial_std(geometry, config.init_std)).log())
        self.register_buffer("matrix", None)
        if learned and not self.per_state:
            self.log_std = nn.Parameter(torch.zeros(d))
            self.coupling = nn.Parameter(torch.zeros(self.couplings))
        if self.rank:
            with torch.no_grad():
                first = self.out.bias[-self.couplings :] if self.per_state else self.coupling
                first.copy_(FIRST_COUPLING * orthogonal(d, self.rank).reshape(-1))
        if config.covariance_matrix is not None:
            self._fix(config.covariance_matrix)
        # Cell (i, j) of C is coupling k below the diagonal, the last entry (1) on it, the one before (0) above.
        below = np.tril_indices(d, -1)
        cells = np.full((d, d), self.couplings)
        cells[np.arange(d), np.arange(d)] = self.couplings + 1
        cells[below] = np.arange(len(below[0])) if self.full else self.couplings
        if self.rank:
            cells = np.zeros((0, 0), np.int64)
        self.register_buffer("cells", torch.as_tensor(cells.reshape(-1)), persistent=False)
        self.register_buffer("constants", torch.tensor([0.0, 1.0]), persistent=False)

    def _fix(self, given: tuple[float, ...]) -> None:
        """Takes the user's matrix: a diagonal one as standard deviations, any other as its factor."""
        d = self.geometry.dim
        if len(given) not in (d, d * d):
            raise UsageError(
                f"policy.covariance_matrix holds {d} variances or the {d} x {d} matrix row by row.",
                given=f"{len(given)} numbers",
            )
        matrix = np.diag(given) if len(given) == d else np.reshape(given, (d, d))
        if not np.allclose(matrix, matrix.T) or not (np.linalg.eigvalsh(matrix) > 0).all():
            raise UsageError("policy.covariance_matrix must be symmetric and positive definite.", given=matrix.tolist())
        std = np.sqrt(np.diag(matrix))
        self.base_log_std.copy_(torch.as_tensor(np.log(std)))
        if (matrix == np.diag(np.diag(matrix))).all():
            return
        self.geometry.check_full()
        order = list(self.geometry.order)
        factor = np.linalg.cholesky(matrix[np.ix_(order, order)])
        self.matrix = torch.as_tensor(factor, dtype=torch.float32)

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """What `shape` draws are made of: standard normal numbers, (*shape, D), or (*shape, D + R) of low rank."""
        return torch.randn((*shape, self.geometry.dim + self.rank), generator=generator, device=generator.device)

    def coordinates(self, latent: Tensor) -> Tensor:
        """(..., D) latents -> (..., D + W) what a critic sees of an action: [-1, 1] for a bounded dimension, the cosine
        of an angle and, after all others, the sines of the W angles; other dimensions less their start, in units of
        their first deviation, or of 1 where the covariance is fixed."""
        x = self.geometry.coordinates(latent)
        if self.scaled:
            x = (x - self.origin) / self.unit
        return torch.cat([x, latent[..., self.angle_columns].sin()], -1) if self.angles else x

    def forward(self, features: Tensor) -> BoxNormal:
        return self.made_of(self.out(features))

    def made_of(self, out: Tensor) -> BoxNormal:
        """The density from what the linear layer gives."""
        d, a = self.geometry.dim, len(self.angles)
        whole = d == out.shape[-1]  # nothing to take apart
        loc = self._loc(out, None) if whole else self._loc(out[..., :d], out[..., d : d + a])
        if self.matrix is not None:
            return BoxNormal(loc, factor=self.matrix, geometry=self.geometry, validate_args=False)
        log_std, coupling = self._spread(out, d + a)
        std = (self.base_log_std + log_std).exp()
        if self.rank:
            loading, residual = self._low_rank(std, coupling)
            return BoxNormal(loc, loading=loading, residual=residual, geometry=self.geometry, validate_args=False)
        if not self.full:
            return BoxNormal(loc, std, geometry=self.geometry, validate_args=False)
        return BoxNormal(loc, factor=self._factor(std, coupling), geometry=self.geometry, validate_args=False)

    def _loc(self, out: Tensor, second: Tensor | None) -> Tensor:
        loc = torch.addcmul(self.offset, self.gain, out)
        if self.kept:
            k = self.kept_columns
            width = 2 * self.gain[k]
            inside = self.offset[k] + width * (torch.sigmoid(out[..., k]) - 0.5)
            loc = loc.clone()
            loc[..., k] = inside
        if self.angles:
            k = self.angle_columns
            assert second is not None
            x = out[..., k]
            # atan2's gradient is 1/r: a vector shorter than 1e-3 counts as one of that length
            x = torch.where(x.square() + second.square() < 1e-6, torch.full_like(x, -1e-3), x)
            angle = torch.atan2(second, x)
            if len(k) == self.geometry.dim:
                return angle
            loc = loc.clone()
            loc[..., k] = angle
        return loc

    def _spread(self, out: Tensor, start: int) -> tuple[Tensor, Tensor | None]:
        """log std relative to its start, (*B, D) or (D,), kept within e^-9 and e^6 of it; and the couplings."""
        if self.per_state:
            d = start + self.geometry.dim
            return out[..., start:d].clamp(-9, 6), out[..., d:]
        if self.config.covariance == "fixed":
            return torch.zeros_like(self.base_log_std), None
        return self.log_std.clamp(-9, 6), self.coupling

    def _factor(self, std: Tensor, coupling: Tensor | None) -> Tensor:
        """diag(std) C with rows in `geometry.order`."""
        assert coupling is not None
        d = self.geometry.dim
        constants = self.constants.expand(*coupling.shape[:-1], 2)
        cells = torch.cat([coupling, constants], -1)[..., self.cells].unflatten(-1, (d, d))
        rows = cells / torch.linalg.vector_norm(cells, dim=-1, keepdim=True)
        order = self.geometry.constants(std).order
        return std[..., order].unsqueeze(-1) * rows

    def _low_rank(self, std: Tensor, coupling: Tensor | None) -> tuple[Tensor, Tensor]:
        """std_i v_i, (*B, D, R), and std_i c_i, (*B, D), where (v_i, c_i) is (coupling_i, 1) at norm 1."""
        assert coupling is not None
        v = coupling.clamp(-MOST_COUPLING, MOST_COUPLING).unflatten(-1, (self.geometry.dim, self.rank))
        own = std / (1 + v.square().sum(-1)).sqrt()
        return own.unsqueeze(-1) * v, own

    @torch.no_grad()
    def start_from(self, other: GaussianHead) -> None:
        """The same mean and the same spread as another head on the same features, whatever either's covariance is.

        A full covariance that becomes diagonal keeps each dimension's standard deviation; one that no longer depends
        on the state keeps what it is at the torso's zero features, and so do the correlations of a low rank that
        becomes full. One without correlations that becomes of low rank starts with its small first ones.
        """
        check_alike(self, other)
        if other.geometry != self.geometry or other.kept != self.kept:
            raise UsageError(
                "A policy can start from another only on the same action space, bounds and periodic dimensions.",
                given=f"{other.geometry.kinds} and {self.geometry.kinds}",
            )
        if self.rank and (other.full or other.matrix is not None or other.rank > self.rank):
            raise UsageError(
                "A covariance of low rank can start from one without correlations, or of no higher rank.",
                given="a full covariance" if not other.rank else f"rank {other.rank}, here {self.rank}",
                fix='covariance="full"' + (f", or rank {other.rank}" if other.rank else ""),
            )
        d, a = self.geometry.dim, len(self.angles)
        mean, scale = slice(0, d + a), torch.cat([other.gain / self.gain, self.gain.new_ones(a)])
        self.out.weight[mean] = scale[:, None] * other.out.weight[mean]
        self.out.bias[mean] = scale * other.out.bias[mean]
        if self.matrix is not None or self.config.covariance_matrix is not None:
            return  # the user named the covariance
        self.base_log_std.copy_(other.base_log_std)
        if self.per_state and other.per_state:
            log_std = slice(d + a, d + a + d)
            self.out.weight[log_std], self.out.bias[log_std] = other.out.weight[log_std], other.out.bias[log_std]
            rest = slice(d + a + d, None)
            if self.rank and other.rank:
                for mine, its in ((self.out.weight, other.out.weight), (self.out.bias, other.out.bias)):
                    mine[rest].unflatten(0, (d, self.rank))[:, : other.rank] = its[rest].unflatten(0, (d, other.rank))
            elif self.full:
                self.out.weight[rest] = other.out.weight[rest] if other.full else 0.0
                self.out.bias[rest] = other.out.bias[rest] if other.full else 0.0
                if other.rank:
                    self.out.bias[rest] = self._couplings(other(torch.zeros_like(other.out.weight[:1])))
            return
        density = other(torch.zeros(1, other.out.in_features, device=other.out.weight.device))
        log_std = density.scale[0].log()
        if self.config.covariance == "fixed":
            self.base_log_std.copy_(log_std)
            return
        relative = log_std - self.base_log_std
        coupling = self.out.bias[d + a + d :].clone() if self.per_state else self.coupling.clone()
        if self.full:
            coupling = self._couplings(density)
        elif self.rank and other.rank:
            its = other.out.bias[d + a + d :] if other.per_state else other.coupling
            coupling.unflatten(0, (d, self.rank))[:, : other.rank] = its.unflatten(0, (d, other.rank))
        if self.per_state:
            self.out.weight[d + a :] = 0.0
            self.out.bias[d + a :] = torch.cat([relative, coupling])
        else:
            self.log_std.copy_(relative)
            self.coupling.copy_(coupling)

    def _couplings(self, density: BoxNormal) -> Tensor:
        """What makes C of the first row of a density, whatever its covariance is. (D (D - 1) / 2,)"""
        d = self.geometry.dim
        rows = density._tril().reshape(-1, d, d)[0]
        below = np.tril_indices(d, -1)
        return (rows / rows.diagonal().unsqueeze(-1))[below[0], below[1]]


def _start(geometry: Geometry, i: int, scale: float = 1.0) -> tuple[float, float]:
    """Where a mean output of 0 puts loc, and what one unit of it is worth, in units of the latent."""
    low, high, kind = geometry.low[i], geometry.high[i], geometry.kinds[i]
    if kind in ("squash", "half"):
        return 0.0, scale
    if kind == "wrap":  # the direction of two outputs, whatever their length
        return 0.0, 1.0
    if math.isfinite(high - low):
        return (low + high) / 2, scale * (high - low) / 2
    if math.isfinite(low):
        return low + math.log(2), scale
    return (high - math.log(2), scale) if math.isfinite(high) else (0.0, scale)


def _unit(geometry: Geometry, i: int, init_std: float | None) -> tuple[float, float]:
    """What is 0, and what is 1, of the coordinate that a critic sees of dimension i."""
    low, high, kind = geometry.low[i], geometry.high[i], geometry.kinds[i]
    if kind in ("squash", "wrap"):
        return 0.0, 1.0
    if math.isfinite(high - low):
        return (low + high) / 2, (high - low) / 2
    return 0.0 if kind == "half" else _start(geometry, i)[0], init_std or 1.0


def _each(init_std: float | tuple[float, ...] | None, i: int) -> float | None:
    if not isinstance(init_std, tuple):
        return init_std
    return init_std[i % len(init_std)] if init_std else None  # as many as are needed, or it is refused elsewhere


DEFAULT_SHARE = 0.25


def _initial_std(geometry: Geometry, init_std: float | tuple[float, ...] | None) -> list[float]:
    """Standard deviation of each latent, so that the action's own is `init_std` at the start."""
    return [_latent_std(geometry, i, std) for i, std in enumerate(each_of(init_std, geometry.dim))]


def each_of(init_std: float | tuple[float, ...] | None, d: int) -> tuple[float | None, ...]:
    """One for each of d dimensions."""
    if isinstance(init_std, tuple) and len(init_std) != d:
        raise UsageError(f"policy.init_std is one number, or one for each of the {d} dimensions.", given=init_std)
    return init_std if isinstance(init_std, tuple) else (init_std,) * d


def usual_std(geometry: Geometry) -> NDArray[np.float32]:
    """(D,) deviations of the latent of a first policy of which nothing is said."""
    return np.array(_initial_std(geometry, None), np.float32)


def widened(head: GaussianHead, noise: NDArray[Any], std: NDArray[np.float32]) -> NDArray[np.float32]:
    """The noise (..., D) by which a head of a fixed covariance draws as if its deviations were `std` (D,), under the
    correlations that it has."""
    wide: NDArray[np.float32] = std / head.base_log_std.exp().cpu().numpy()
    if head.matrix is None:
        return noise * wide
    factor, order = head.matrix.cpu().numpy(), list(head.geometry.order)
    moved: NDArray[np.float32] = np.linalg.solve(factor, wide[order, None] * factor)  # L e' = diag(wide) L e
    return noise @ moved.T


def _latent_std(geometry: Geometry, i: int, std: float | None) -> float:
    width, kind = geometry.high[i] - geometry.low[i], geometry.kinds[i]
    if std is None:
        std = DEFAULT_SHARE if math.isfinite(width) else 1.0
    if kind == "wrap":
        return std * 2 * math.pi
    if kind in ("free", "clip"):
        return std * width if math.isfinite(width) else std
    if kind == "squash" and std >= 0.5:
        raise UsageError(
            "policy.init_std is a share of the width, and no law on an interval has a deviation of half its width.",
            given=f"{std} for dimension {i}",
            cause="a standard deviation in the action's own units",
            fix=f"policy.init_std {DEFAULT_SHARE}, or another share below 0.5",
        )
    # The deviation of sigmoid(s eps), or softplus(s eps), grows with s: bisection.
    eps = np.linspace(-9, 9, 4001)
    weight = np.exp(-0.5 * eps**2)
    weight /= weight.sum()
    squash = kind == "squash"
    low, high = 1e-7, 1e4
    for _ in range(80):
        s = math.sqrt(low * high)
        y = 0.5 * (1 + np.tanh(0.5 * s * eps)) if squash else np.logaddexp(0, s * eps)
        got = math.sqrt(float(weight @ y**2 - (weight @ y) ** 2))
        low, high = (s, high) if got < std else (low, s)
    return math.sqrt(low * high)
