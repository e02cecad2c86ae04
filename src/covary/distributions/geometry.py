"""How each dimension of a box carries a Gaussian: the maps from latent to action, their slopes and inverses.

A latent u ~ N(loc, L L^T) is mapped dimension by dimension to the action a:

    free      a = u                                                        both bounds infinite, or asked for
    squash    a = low + w sigmoid(u)                                       a finite interval of width w
    half      a = low + softplus(u)  or  high - softplus(u)                one bound is infinite
    wrap      a = low + (u mod 2 pi) w / 2 pi                              a finite interval that is a circle
    clip      a = min(max(u, low), high)                                   censored: point masses at the bounds

The *latent* that is kept beside an action is u for free, squashed and half-bounded dimensions, the angle in [0, 2 pi)
for wrapped ones, and the clipped value itself for clipped ones: from it the action and its density follow, and nothing
is ever inverted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn import functional as F

from covary.distributions.scalar import TWO_PI

Kind = Literal["free", "squash", "half", "wrap", "clip"]
Bounds = Literal["auto", "squash", "clip", "mean", "free"]


class _Group(NamedTuple):
    """The columns of one kind, with their constants: G of the D dimensions."""

    kind: Kind
    columns: Tensor | None  # (G,) None: all of them
    low: Tensor  # (G,)
    high: Tensor  # (G,)
    width: Tensor  # (G,) infinite where a bound is
    log_scale: Tensor  # (G,) log w of a squashed dimension, log(w / 2 pi) of a wrapped one
    open_high: Tensor  # (G,) the largest number below `high`
    edge: Tensor  # (G,) the finite bound of a half-bounded dimension
    sign: Tensor  # (G,) +1 where that one opens upwards, -1 downwards


class _Constants(NamedTuple):
    """The box as tensors of one dtype on one device."""

    low: Tensor  # (D,)
    high: Tensor  # (D,)
    groups: tuple[_Group, ...]
    regroup: Tensor | None  # puts concatenated groups back in order
    rest: Tensor  # columns that are neither wrapped nor clipped
    wrapped: Tensor
    clipped: Tensor
    order: Tensor  # (D,) columns in the order of a full Cholesky factor
    unorder: Tensor  # (D,) and back


@dataclass(frozen=True)
class Geometry:
    """A box of D dimensions and the kind of each. Immutable; build it with `Geometry.box`.

    Attributes:
        kinds: (D,) one of free, squash, half, wrap, clip.
        low, high: (D,) the box; infinite where open.
    """

    kinds: tuple[Kind, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    _cache: dict[tuple[torch.dtype, torch.device], _Constants] = field(
        default_factory=dict, init=False, repr=False, compare=False, hash=False
    )

    @classmethod
    def box(
        cls,
        low: ArrayLike,
        high: ArrayLike,
        *,
        bounds: Bounds | Sequence[Bounds] = "auto",
        periodic: Sequence[int] = (),
    ) -> Geometry:
        """The geometry of a box.

        Args:
            low, high: (D,) bounds, infinite where there is none.
            bounds: one word, or one for each dimension. `auto`: finite squash, half-infinite half, infinite free.
                `mean` and `free` are unclipped Gaussians in action units, of which only the executed action is
                clipped; they differ in how a policy makes their loc.
            periodic: dimensions that are circles, whatever `bounds` says.

        Raises:
            ValueError: no dimension, low >= high, `squash` or `mean` without finite bounds, a width or an edge that
                float32 cannot hold, a periodic index that is out of range or names no finite interval.
        """
        lo, hi = np.atleast_1d(np.asarray(low, np.float64)), np.atleast_1d(np.asarray(high, np.float64))
        if lo.ndim != 1 or lo.shape != hi.shape or not len(lo):
            raise ValueError(f"low and high are vectors of one length, 1 or more.\n  given: {lo.shape} and {hi.shape}")
        if not (bad := lo < hi).all():
            i = int(np.flatnonzero(~bad)[0])
            raise ValueError(
                f"Every dimension of a box needs low < high.\n  given: dimension {i}: low {lo[i]}, high {hi[i]}\n"
                "  cause: bounds in the wrong order, or an action that cannot vary\n"
                "  fix:   give the box its true bounds, or leave that dimension out of the action space"
            )
        d = len(lo)
        words: tuple[Any, ...] = tuple(bounds) if isinstance(bounds, list | tuple) else (bounds,) * d
        if len(words) == 1:
            words = words * d
        if len(words) != d or not all(word in get_args(Bounds) for word in words):
            raise ValueError(
                f"bounds is one of {', '.join(get_args(Bounds))}, or one of them for each of the {d} dimensions.\n"
                f"  given: {bounds!r}"
            )
        return cls(
            tuple(_kind(i, word, lo[i], hi[i], _circles(periodic, lo, hi)) for i, word in enumerate(words)),
            tuple(lo.tolist()),
            tuple(hi.tolist()),
        )

    def part(self, columns: Sequence[int]) -> Geometry:
        """The geometry of some of the dimensions."""
        kinds, low, high = self.kinds, self.low, self.high
        return Geometry(
            tuple(kinds[i] for i in columns), tuple(low[i] for i in columns), tuple(high[i] for i in columns)
        )

    @property
    def dim(self) -> int:
        return len(self.kinds)

    def columns(self, *kinds: Kind) -> tuple[int, ...]:
        """Indices of the dimensions of these kinds."""
        return tuple(i for i, kind in enumerate(self.kinds) if kind in kinds)

    @property
    def order(self) -> tuple[int, ...]:
        """Columns in the order of a full Cholesky factor: wrapped and clipped ones last, so that they have a
        conditional law given all others in closed form."""
        return self.columns("free", "squash", "half") + self.columns("wrap") + self.columns("clip")

    def check_full(self) -> None:
        """Raises ValueError where a full covariance has no exact density on this geometry."""
        wrapped, clipped = self.columns("wrap"), self.columns("clip")
        if len(clipped) > 1:
            raise ValueError(
                "Under a full covariance at most one dimension can be clipped: the point masses of two are integrals "
                f"of a Gaussian over a corner, which have no closed form.\n  given: clipped dimensions {clipped}\n"
                '  fix:   bounds="squash" (exact under any covariance), or covariance="diagonal" with bounds="clip"'
            )
        if len(wrapped) + len(clipped) > 2:
            raise ValueError(
                "Under a full covariance at most two angles, or one angle and one clipped dimension, can be "
                f"correlated: more would need a lattice of images in three dimensions.\n"
                f"  given: wrapped {wrapped}, clipped {clipped}\n"
                '  fix:   covariance="diagonal", in which angles are independent of each other, or fewer of them'
            )

    def constants(self, like: Tensor) -> _Constants:
        key = (like.dtype, like.device)
        if key not in self._cache:
            with torch.inference_mode(False):  # what is kept must also serve autograd
                self._cache[key] = self._make(*key)
        return self._cache[key]

    def _make(self, dtype: torch.dtype, device: torch.device) -> _Constants:
        low = torch.tensor(self.low, dtype=dtype, device=device)
        high = torch.tensor(self.high, dtype=dtype, device=device)

        def index(columns: Sequence[int] | np.ndarray) -> Tensor:
            return torch.as_tensor(np.asarray(columns, np.int64), device=device)

        present = [kind for kind in get_args(Kind) if kind in self.kinds]
        groups = []
        for kind in present:
            columns = index(self.columns(kind))
            lo, hi = low[columns], high[columns]
            up = hi.isinf()
            groups.append(
                _Group(
                    kind,
                    None if len(present) == 1 else columns,
                    lo,
                    hi,
                    hi - lo,
                    (hi - lo).log() - (math.log(TWO_PI) if kind == "wrap" else 0.0),
                    torch.nextafter(hi, lo),
                    torch.where(up, lo, hi),
                    torch.where(up, 1.0, -1.0).to(dtype),
                )
            )
        grouped = np.concatenate([self.columns(kind) for kind in present])
        return _Constants(
            low,
            high,
            tuple(groups),
            None if len(present) == 1 else index(np.argsort(grouped)),
            index(self.columns("free", "squash", "half")),
            index(self.columns("wrap")),
            index(self.columns("clip")),
            index(self.order),
            index(np.argsort(self.order)),
        )

    # ------------------------------------------------------------------------------------------------- the maps

    def to_latent(self, u: Tensor) -> Tensor:
        """The latent that is kept: an angle is folded into [0, 2 pi), a clipped dimension clipped. (..., D)."""
        return self._by_group(u, _kept)

    def to_action(self, latent: Tensor) -> Tensor:
        """(..., D) latent -> (..., D) action inside the box; wrapped dimensions lie in [low, high)."""
        return self._by_group(latent, _action)

    def from_action(self, action: Tensor) -> Tensor:
        """(..., D) action -> latent. An action at a bound counts as the nearest number inside it, so that its
        density is finite; any real number is accepted on a wrapped dimension."""
        return self._by_group(action, _latent)

    def log_slope(self, latent: Tensor) -> Tensor:
        """log |da/du| by dimension, (..., D); 0 for free and clipped ones."""
        return self._by_group(latent, _log_slope)

    def coordinates(self, latent: Tensor) -> Tensor:
        """(..., D) as a network may see the action: [-1, 1] across a squashed dimension, the distance from the start of
        a half-bounded one, the cosine of an angle, and any other as it is."""
        return self._by_group(latent, _coordinate)

    def _by_group(self, x: Tensor, rule: Callable[[Tensor, _Group], Tensor]) -> Tensor:
        constants = self.constants(x)
        if constants.regroup is None:
            return rule(x, constants.groups[0])
        parts = [rule(x[..., group.columns], group) for group in constants.groups]
        return torch.cat(parts, -1)[..., constants.regroup]

    def execute(self, action: Tensor) -> Tensor:
        """The action that the environment gets: clipped to the box, which changes unbounded Gaussians only."""
        c = self.constants(action)
        return torch.minimum(torch.maximum(action, c.low), c.high)


def _circles(periodic: Sequence[int], low: np.ndarray, high: np.ndarray) -> set[int]:
    if not np.iterable(periodic):
        raise ValueError(f"periodic is a sequence of dimensions.\n  given: {periodic!r}\n  fix:   ({periodic},)")
    for i in periodic:
        if not (isinstance(i, int | np.integer) and -len(low) <= i < len(low)):
            raise ValueError(
                f"periodic holds indices into the {len(low)} dimensions of the flattened box.\n  given: {i!r}\n"
                f"  fix:   indices from 0 to {len(low) - 1}"
            )
        if not math.isfinite(high[i] - low[i]):
            raise ValueError(
                f"A periodic dimension is a finite interval whose ends are one point.\n  given: periodic dimension "
                f"{i} with low {low[i]}, high {high[i]}\n  fix:   give that dimension of the box its period as bounds"
            )
    return {int(i) % len(low) for i in periodic}


def _kind(i: int, word: Bounds, low: float, high: float, circles: set[int]) -> Kind:
    finite = math.isfinite(low) + math.isfinite(high)
    if i in circles:
        _check_width(i, low, high)
        return "wrap"
    if word in ("squash", "mean") and finite < 2:
        raise ValueError(
            f'bounds="{word}" needs finite bounds.\n  given: dimension {i} with low {low}, high {high}\n'
            '  fix:   bounds="auto", which takes every dimension as it is, or finite bounds in the environment'
        )
    if word in ("mean", "free") or finite == 0:
        return "free"
    if word == "clip":
        return "clip"
    if finite < 2:
        edge = low if math.isfinite(low) else high
        if abs(edge) > np.finfo(np.float32).max:
            raise ValueError(
                f"A bound must be a number of float32.\n  given: dimension {i} with low {low}, high {high}"
            )
        return "half"
    _check_width(i, low, high)
    return "squash"


def _check_width(i: int, low: float, high: float) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        width = np.float32(high) - np.float32(low)
    if not 0 < width < math.inf:
        raise ValueError(
            "The width of a squashed or periodic dimension must be a number of float32, neither 0 nor infinite.\n"
            f"  given: dimension {i} with low {low}, high {high}\n"
            '  fix:   the range that the action really has, or bounds="clip" or "free"'
        )


def _kept(u: Tensor, g: _Group) -> Tensor:
    if g.kind == "wrap":
        angle = torch.remainder(u, TWO_PI)
        return torch.where(angle < TWO_PI, angle, torch.zeros_like(angle))  # float32 may round up to the period
    return torch.minimum(torch.maximum(u, g.low), g.high) if g.kind == "clip" else u


def _action(latent: Tensor, g: _Group) -> Tensor:
    if g.kind == "squash":  # low + w may round past `high`
        return torch.minimum(g.low + g.width * torch.sigmoid(latent), g.high)
    if g.kind == "half":
        return g.edge + g.sign * F.softplus(latent)
    if g.kind == "wrap":
        return torch.minimum(g.low + latent * (g.width / TWO_PI), g.open_high)
    return latent


def _latent(action: Tensor, g: _Group) -> Tensor:
    if g.kind == "squash":
        tiny = torch.finfo(action.dtype).tiny
        inside = torch.nextafter(g.low, g.high)
        a = torch.minimum(torch.maximum(action, inside), g.open_high)
        return (a - g.low).clamp(min=tiny).log() - (g.high - a).clamp(min=tiny).log()
    if g.kind == "half":
        inside = torch.nextafter(g.edge, g.sign * math.inf)
        y = torch.maximum(g.sign * (action - g.edge), (inside - g.edge).abs().clamp(min=torch.finfo(action.dtype).tiny))
        return y + torch.log(-torch.expm1(-y))  # the inverse of softplus
    if g.kind == "wrap":
        return _kept((action - g.low) * (TWO_PI / g.width), g)
    return _kept(action, g)


def _coordinate(latent: Tensor, g: _Group) -> Tensor:
    if g.kind == "squash":
        return torch.tanh(0.5 * latent)
    if g.kind == "half":
        return F.softplus(latent) - math.log(2)
    return latent.cos() if g.kind == "wrap" else latent


def _log_slope(latent: Tensor, g: _Group) -> Tensor:
    if g.kind == "squash":
        return g.log_scale - F.softplus(latent) - F.softplus(-latent)
    if g.kind == "half":
        return -F.softplus(-latent)
    if g.kind == "wrap":
        return g.log_scale.expand_as(latent)
    return torch.zeros_like(latent)
