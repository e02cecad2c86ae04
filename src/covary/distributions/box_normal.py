"""A multivariate normal carried onto a box: free, squashed, half-bounded, wrapped and clipped dimensions under one
diagonal, low-rank or full covariance, as a torch distribution. `joint` has the mathematics, `geometry` the maps.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints, register_kl

from covary.distributions.geometry import Geometry
from covary.distributions.joint import (
    diagonal_entropy,
    diagonal_log_prob,
    full_entropy,
    full_log_prob,
    low_rank_entropy,
    low_rank_log_prob,
    low_rank_scale,
    low_rank_tril,
    lower_of,
    marginal_scale,
    whiten,
)
from covary.distributions.scalar import censored_moments, expected_sigmoid, expected_softplus, shortest_arc


class Drawn(NamedTuple):
    """What one forward map gives: the action, the latent it came from (for a wrapped dimension its angle), and the
    log-probability of the action."""

    action: Tensor
    latent: Tensor
    log_prob: Tensor


class _BoxSupport(constraints.Constraint):
    """The closed box, any real number on a wrapped dimension; unclipped Gaussians take any."""

    is_discrete = False
    event_dim = 1

    def __init__(self, geometry: Geometry) -> None:
        self.geometry = geometry

    def check(self, value: Tensor) -> Tensor:
        c = self.geometry.constants(value)
        held = torch.tensor([kind not in ("free", "wrap") for kind in self.geometry.kinds], device=value.device)
        return (value.isfinite() & (~held | ((value >= c.low) & (value <= c.high)))).all(-1)

    def __repr__(self) -> str:
        return f"box({self.geometry})"


class BoxNormal(Distribution):
    """A multivariate normal latent carried onto a box, dimension by dimension (see `Geometry`).

    Args:
        loc: (*B, D) mean of the latent: raw units; radians for wrapped dimensions.
        scale: (*B, D) standard deviations of independent latents; or one of those below.
        scale_tril: (*B, D, D) lower Cholesky factor of the latent's covariance, rows in natural order.
        covariance_matrix: (*B, D, D) the latent's covariance.
        factor: (*B, D, D) lower Cholesky factor with rows in `geometry.order`, for networks that output one: nothing
            has to be factored again.
        loading, residual: (*B, D, R) and (*B, D), both or neither: a covariance loading loading^T + diag(residual^2) of
            low rank, rows in natural order. u = loc + residual eps + loading eta, of which R numbers eta are shared.
        geometry: what each dimension is; all free when left out, which is torch's MultivariateNormal.

    Raises:
        ValueError: not exactly one covariance, shapes that do not fit, values that are not finite or no covariance
            (unless validate_args is False), or a full covariance on a geometry where no exact density exists.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 (checked below, with better messages)
    has_rsample = True

    def __init__(
        self,
        loc: Tensor,
        scale: Tensor | None = None,
        *,
        scale_tril: Tensor | None = None,
        covariance_matrix: Tensor | None = None,
        factor: Tensor | None = None,
        loading: Tensor | None = None,
        residual: Tensor | None = None,
        geometry: Geometry | None = None,
        validate_args: bool | None = None,
    ) -> None:
        given = {
            name: value
            for name, value in (
                ("scale", scale),
                ("scale_tril", scale_tril),
                ("covariance_matrix", covariance_matrix),
                ("factor", factor),
                ("loading", loading),
            )
            if value is not None
        }
        if len(given) != 1 or (loading is None) != (residual is None):
            both = [*given, *(["residual"] if residual is not None else [])]
            raise ValueError(
                "BoxNormal takes exactly one of scale, scale_tril, covariance_matrix, factor, loading with residual.\n"
                f"  given: {', '.join(both) or 'none'}"
            )
        ((name, spread),) = given.items()
        rows = -1 if name == "scale" else -2
        if (
            loc.dim() < 1
            or spread.dim() < -rows
            or spread.shape[rows] != loc.shape[-1]
            or (name not in ("scale", "loading") and spread.shape[-1] != loc.shape[-1])
        ):
            wanted = {"scale": "(*B, D)", "loading": "(*B, D, R)"}.get(name, "(*B, D, D)")
            raise ValueError(
                f"loc is (*B, D) and {name} {wanted}.\n  given: {tuple(loc.shape)} and {tuple(spread.shape)}"
            )
        if residual is not None and residual.shape != spread.shape[:-1]:
            raise ValueError(
                "loading is (*B, D, R) and residual (*B, D).\n"
                f"  given: {tuple(spread.shape)} and {tuple(residual.shape)}"
            )
        d = loc.shape[-1]
        self.geometry = geometry or Geometry.box([-math.inf] * d, [math.inf] * d)
        if self.geometry.dim != d:
            raise ValueError(f"The geometry has {self.geometry.dim} dimensions, loc has {d}.")
        if name != "scale":
            self.geometry.check_full()
        batch, other = loc.shape[:-1], spread.shape[:rows]
        if other and other != batch:
            batch = _broadcast(batch, other, name)
        super().__init__(batch, loc.shape[-1:], validate_args=validate_args)
        if self._validate_args:
            _check(loc, name, spread)
            if residual is not None:
                _check(loc, "residual", residual)
        self.loc = loc.expand(*batch, d)
        self._scale = spread if name == "scale" else None
        self._low = None if residual is None else (spread, residual)
        self._factor = None if name in ("scale", "loading") else self._in_order(name, spread)

    def _in_order(self, name: str, spread: Tensor) -> Tensor:
        """A Cholesky factor with its rows in `geometry.order`."""
        natural = self.geometry.order == tuple(range(self.geometry.dim))
        order = self.geometry.constants(spread).order
        if name == "factor" or (name == "scale_tril" and natural):
            return spread
        if name == "covariance_matrix":
            return torch.linalg.cholesky(spread if natural else spread[..., order, :][..., order])
        return lower_of(spread[..., order, :])

    def expand(self, batch_shape: Any, _instance: Any = None) -> BoxNormal:
        new = self._get_checked_instance(BoxNormal, _instance)
        new.geometry, new._scale, new._low, new._factor = self.geometry, self._scale, self._low, self._factor
        new.loc = self.loc.expand(torch.Size(batch_shape) + self.event_shape)
        super(BoxNormal, new).__init__(torch.Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def around(self, loc: Tensor) -> BoxNormal:
        """The same covariance around another mean of the latent, (*B, D)."""
        loading, residual = self._low or (None, None)
        return BoxNormal(
            loc,
            self._scale,
            factor=self._factor,
            loading=loading,
            residual=residual,
            geometry=self.geometry,
            validate_args=False,
        )

    # --- parameters

    @property
    def scale(self) -> Tensor:
        """(*B, D) standard deviations of the latent."""
        if self._low is not None:
            return low_rank_scale(*self._low).expand(self.loc.shape)
        scale = self._scale if self._factor is None else marginal_scale(self._factor, self.geometry)
        assert scale is not None
        return scale.expand(self.loc.shape)

    def _tril(self) -> Tensor:
        """(*B, D, D), or without a batch: the lower Cholesky factor, rows in `geometry.order`, of any covariance."""
        if self._factor is not None:
            return self._factor
        order = self.geometry.constants(self.loc).order
        if self._low is not None:
            loading, residual = self._low
            return low_rank_tril(loading[..., order, :], residual[..., order])
        assert self._scale is not None
        return torch.diag_embed(self._scale[..., order])

    @property
    def covariance_matrix(self) -> Tensor:
        """(*B, D, D) the latent's covariance, in natural order."""
        if self._low is not None:
            loading, residual = self._low
            matrix = loading @ loading.mT + torch.diag_embed(residual.square())
            return matrix.expand(*self.batch_shape, -1, -1)
        if self._factor is None:
            return torch.diag_embed(self.scale.square())
        rows = self._factor[..., self.geometry.constants(self.loc).unorder, :]
        return (rows @ rows.mT).expand(*self.batch_shape, -1, -1)

    @property
    def scale_tril(self) -> Tensor:
        """(*B, D, D) lower Cholesky factor of the latent's covariance, in natural order."""
        if self._low is not None:
            return low_rank_tril(*self._low).expand(*self.batch_shape, -1, -1)
        if self._factor is None:
            return torch.diag_embed(self.scale)
        if self.geometry.order == tuple(range(self.geometry.dim)):
            return self._factor.expand(*self.batch_shape, -1, -1)
        lower = lower_of(self._factor[..., self.geometry.constants(self.loc).unorder, :])
        return lower.expand(*self.batch_shape, -1, -1)

    @property
    def latent_variances(self) -> Tensor:
        """(*B, D) eigenvalues of the latent's covariance, from the smallest to the largest; without a batch where the
        covariance has none. Squares of singular values of its factor, so that none is negative; NaN where it is not
        finite."""
        if self._scale is not None:
            return self._scale.square().sort(-1).values
        tril = self._tril()
        finite = tril.isfinite().all(-1).all(-1)
        values = torch.linalg.svdvals(torch.where(finite[..., None, None], tril, torch.zeros_like(tril)))
        return torch.where(finite.unsqueeze(-1), values.square().flip(-1), torch.nan)

    @property
    def support(self) -> constraints.Constraint:
        return _BoxSupport(self.geometry)

    # --- sampling and scoring

    @property
    def noise_shape(self) -> torch.Size:
        """Of the numbers that one action is made of: (D,), or (D + R,) of a covariance of low rank."""
        shared = 0 if self._low is None else self._low[0].shape[-1]
        return torch.Size((self.event_shape[0] + shared,))

    def noise(self, sample_shape: Any = (), generator: torch.Generator | None = None) -> Tensor:
        """(S*, B*, D) standard normal numbers, what one draw is made of; (S*, B*, D + R) of a covariance of low rank,
        whose last R numbers all dimensions share."""
        shape = torch.Size((*sample_shape, *self.batch_shape, *self.noise_shape))
        device = self.loc.device if generator is None else generator.device
        return torch.randn(shape, generator=generator, dtype=self.loc.dtype, device=device).to(self.loc.device)

    def sample_latent(self, sample_shape: Any = (), *, noise: Tensor | None = None) -> Tensor:
        """(S*, B*, D) the latent of an action, reparametrised; `to_action` maps it."""
        if noise is None:
            noise = self.noise(sample_shape)
        elif noise.shape != (shape := torch.Size((*sample_shape, *self.batch_shape, *self.noise_shape))):
            wanted = "(S*, B*, D)" if self._low is None else "(S*, B*, D + R)"
            raise ValueError(f"noise is {wanted} = {tuple(shape)}.\n  given: {tuple(noise.shape)}")
        if self._low is not None:
            loading, residual = self._low
            own, shared = noise[..., : self.geometry.dim], noise[..., self.geometry.dim :]
            deviation = residual * own + (loading @ shared.unsqueeze(-1)).squeeze(-1)
            return self.geometry.to_latent(self.loc + deviation)
        if self._factor is None:
            assert self._scale is not None
            return self.geometry.to_latent(self.loc + self._scale * noise)
        deviation = (self._factor @ noise.unsqueeze(-1)).squeeze(-1)
        return self.geometry.to_latent(self.loc + deviation[..., self.geometry.constants(self.loc).unorder])

    def to_action(self, latent: Tensor) -> Tensor:
        """(..., D) latent -> action."""
        return self.geometry.to_action(latent)

    def draw(self, sample_shape: Any = (), *, noise: Tensor | None = None) -> Drawn:
        """An action, its latent and its log-probability from one forward map; all reparametrised.

        noise: standard normal numbers as `noise` draws them; torch's own generator when left out.
        """
        latent = self.sample_latent(sample_shape, noise=noise)
        return Drawn(self.to_action(latent), latent, self.log_prob_latent(latent))

    def sample_and_log_prob(self, sample_shape: Any = (), *, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(S*, B*, D) action and (S*, B*) log-probability, scored from its latent: exact at saturation."""
        action, _, log_prob = self.draw(sample_shape, noise=noise)
        return action, log_prob

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return self.draw(sample_shape).action

    def log_prob(self, value: Tensor) -> Tensor:
        """(S*, B*, D) action -> (S*, B*). An action at a bound is scored as the nearest number inside."""
        if self._validate_args:
            if isinstance(value, Tensor) and not value.is_floating_point():
                raise ValueError(f"An action is floating-point.\n  given: {value.dtype}\n  fix:   action.float()")
            self._validate_sample(value)
        return self.log_prob_latent(self.geometry.from_action(value))

    def log_prob_latent(self, latent: Tensor, *, jacobian: bool = True) -> Tensor:
        """Log-probability of the action whose latent is given. (S*, B*, D) -> (S*, B*).

        jacobian: whether the geometry's own log |da/du| is taken off; it depends on the latent alone, so that ratios
            and gradients do without.
        """
        if self._validate_args and latent.shape[-1:] != self.event_shape:
            raise ValueError(f"latent is (S*, B*, D), D = {self.event_shape[0]}.\n  given: {tuple(latent.shape)}")
        if self._low is not None and not self._tail:
            log_prob = low_rank_log_prob(latent, self.loc, *self._low)
        elif self._scale is not None:
            log_prob = diagonal_log_prob(latent, self.loc, self._scale, self.geometry)
        else:
            log_prob = full_log_prob(latent, self.loc, self._tril(), self.geometry)
        return log_prob - self.geometry.log_slope(latent).sum(-1) if jacobian else log_prob

    def entropy(self) -> Tensor:
        """(B*,) nats, of the action that is executed (of the unclipped Gaussian for free dimensions)."""
        if self._low is not None and not self._tail:
            return low_rank_entropy(self.loc, *self._low, self.geometry)
        if self._scale is not None:
            return diagonal_entropy(self.loc, self.scale, self.geometry)
        return full_entropy(self.loc, self._tril(), self.geometry).expand(self.batch_shape)

    @property
    def _tail(self) -> bool:
        """Whether a dimension is wrapped or clipped, which only a triangular factor serves."""
        return bool(self.geometry.columns("wrap", "clip"))

    # --- points

    @property
    def mean(self) -> Tensor:
        """(B*, D) expected action; for a wrapped dimension the circular mean. Error below 1e-6 in float64; that of a
        clipped dimension in float32 is about 1e-7 of loc and scale."""
        parts = self.median.clone()
        scale = self.scale
        for group in self.geometry.constants(self.loc).groups:
            k: Any = slice(None) if group.columns is None else group.columns
            m, s = self.loc[..., k], scale[..., k]
            if group.kind == "squash":
                parts[..., k] = group.low + group.width * expected_sigmoid(m, s)
            elif group.kind == "half":
                parts[..., k] = group.edge + group.sign * expected_softplus(m, s)
            elif group.kind == "clip":
                parts[..., k] = censored_moments(m, s, group.low, group.high)[0]
        return parts

    @property
    def median(self) -> Tensor:
        """(B*, D) median of each dimension: the image of loc (the circular median of a wrapped dimension)."""
        return self.geometry.to_action(self.geometry.to_latent(self.loc))

    @property
    def mode(self) -> Tensor:
        if self.geometry.columns("squash", "half", "clip"):
            raise NotImplementedError(
                "The mode of a squashed, half-bounded or clipped dimension has no closed form (there may be two).\n"
                "  fix: use `median`, the image of loc, which is what a deterministic policy executes"
            )
        return self.median

    @property
    def variance(self) -> Tensor:
        if set(self.geometry.kinds) != {"free"}:
            raise NotImplementedError(
                "The variance of the action is not computed on bounded dimensions.\n"
                "  fix: `covariance_matrix` is that of the latent; the action's own comes from samples"
            )
        return self.scale.square()

    @property
    def deterministic_action(self) -> Tensor:
        """(B*, D) what a deterministic policy executes: the median."""
        return self.median

    def __repr__(self) -> str:
        kind = "low-rank" if self._low is not None else "diagonal" if self._factor is None else "full"
        kinds = ", ".join(self.geometry.kinds)
        return f"BoxNormal({kind} covariance, ({kinds}), batch_shape={tuple(self.batch_shape)})"


def _broadcast(batch: torch.Size, other: torch.Size, name: str) -> torch.Size:
    try:
        return torch.broadcast_shapes(batch, other)
    except RuntimeError as error:
        raise ValueError(
            f"The batch shapes of loc and {name} broadcast.\n  given: {tuple(batch)} and {tuple(other)}"
        ) from error


def _check(loc: Tensor, name: str, spread: Tensor) -> None:
    """Raises ValueError unless the parameters make a Gaussian."""
    for label, tensor in (("loc", loc), (name, spread)):
        if not tensor.is_floating_point():
            raise ValueError(
                f"{label} holds floating-point numbers.\n  given: {tensor.dtype}\n  fix:   {label}.float()"
            )
    for label, tensor in (("loc", loc), (name, spread)):
        if not tensor.isfinite().all():
            at = tuple(int(i) for i in (~tensor.isfinite()).nonzero()[0])
            raise ValueError(
                f"{label} must be finite.\n  given: {tensor[at].item()} at index {at}\n"
                "  cause: a network that has diverged, or an observation that is not finite"
            )
    if name == "covariance_matrix":
        symmetric = torch.allclose(spread, spread.mT, rtol=1e-4, atol=1e-6)
        if not symmetric or bool(torch.linalg.cholesky_ex(spread).info.any()):
            raise ValueError(
                "covariance_matrix must be symmetric and positive definite.\n"
                f"  given: {spread.detach()}\n"
                "  fix:   let the network give a Cholesky factor with a positive diagonal, scale_tril="
            )
        return
    if name == "loading":
        return
    vector = name in ("scale", "residual")
    diagonal = spread if vector else spread.diagonal(dim1=-2, dim2=-1)
    if not (diagonal > 0).all():
        raise ValueError(
            f"{name if vector else 'The diagonal of ' + name} must be positive.\n"
            f"  given: {float(diagonal.detach().min())}\n  fix:   pass the network's output through exp or softplus"
        )
    if not vector and spread.triu(1).any():
        raise ValueError(f"{name} must be lower triangular.\n  fix:   torch.tril(...), or covariance_matrix=")


# ---------------------------------------------------------------------------------------------------------- KL


def latent_kl(p: BoxNormal, q: BoxNormal) -> Tensor:
    """KL(p || q) in nats between the latent Gaussians, (B*,), the mean difference taken on the shortest arc in wrapped
    dimensions. It bounds the KL of the actions from above, and equals it where nothing is wrapped or clipped."""
    g = p.geometry
    if g != q.geometry:
        raise ValueError("latent_kl compares two densities on one geometry.")
    difference = p.loc - q.loc
    if wrapped := g.columns("wrap"):
        mask = torch.zeros(g.dim, dtype=torch.bool, device=difference.device)
        mask[list(wrapped)] = True
        difference = torch.where(mask, shortest_arc(difference), difference)
    if p._scale is not None and q._scale is not None:
        ratio = (p.scale / q.scale).square()
        return 0.5 * (ratio + (difference / q.scale).square() - 1 - ratio.log()).sum(-1)
    order = g.constants(difference).order
    p_tril, q_tril = p._tril(), q._tril()
    trace = torch.linalg.solve_triangular(q_tril, p_tril, upper=False).square().sum((-2, -1))
    log_det = (q_tril.diagonal(dim1=-2, dim2=-1).log() - p_tril.diagonal(dim1=-2, dim2=-1).log()).sum(-1)
    return 0.5 * (trace + whiten(difference[..., order], q_tril).square().sum(-1) - g.dim) + log_det


@register_kl(BoxNormal, BoxNormal)
def _kl(p: BoxNormal, q: BoxNormal) -> Tensor:
    if p.geometry != q.geometry:
        raise NotImplementedError("KL between densities on different boxes is infinite or has no closed form.")
    if p.geometry.columns("wrap", "clip"):
        raise NotImplementedError(
            "The KL between wrapped or clipped densities has no closed form.\n"
            "  fix: covary.distributions.latent_kl(p, q), an upper bound"
        )
    return latent_kl(p, q)
