"""The joint density of a multivariate normal carried onto a box, as pure functions over (parameters, value).

With u_R the free, squashed and half-bounded dimensions, whitened to eps_R = L_RR^-1 (u_R - loc_R),

    log p(a) = log N(u_R; loc_R, L_RR L_RR^T) + log p(tail | u_R) - sum_i log slope_i(u_i),

where the tail, the wrapped and clipped dimensions, is Gaussian given u_R with mean loc_T + L_TR eps_R and factor L_TT,
and then wrapped or censored. A full factor L therefore has its rows in `geometry.order`: the tail comes last.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from covary.distributions.geometry import Geometry
from covary.distributions.scalar import (
    HALF_LOG_TWO_PI,
    TWO_PI,
    censored_log_prob,
    censored_moments,
    expected_softplus,
    normal_log_prob,
    shortest_arc,
    wrapped_normal_entropy,
    wrapped_normal_log_prob,
)

# ------------------------------------------------------------------------------------------- diagonal covariance


def diagonal_log_prob(latent: Tensor, loc: Tensor, scale: Tensor, geometry: Geometry) -> Tensor:
    """Log density of the latent. latent (S*, B*, D), loc and scale (B*, D) or (D,) -> (S*, B*)."""
    c = geometry.constants(loc)
    if len(c.rest) == geometry.dim:
        return normal_log_prob(latent, loc, scale).sum(-1)
    latent, loc, scale = torch.broadcast_tensors(latent, loc, scale)
    total = torch.zeros_like(latent[..., 0])
    if len(c.rest):
        total = total + normal_log_prob(latent[..., c.rest], loc[..., c.rest], scale[..., c.rest]).sum(-1)
    if len(c.wrapped):
        arc = latent[..., c.wrapped] - loc[..., c.wrapped]
        total = total + wrapped_normal_log_prob(arc, scale[..., c.wrapped]).sum(-1)
    if len(c.clipped):
        k = c.clipped
        total = total + censored_log_prob(latent[..., k], loc[..., k], scale[..., k], c.low[k], c.high[k]).sum(-1)
    return total


# ----------------------------------------------------------------------------------------------- full covariance


def whiten(deviation: Tensor, tril: Tensor) -> Tensor:
    """tril^-1 deviation. deviation (S*, B*, R), tril (B*, R, R) or (R, R)."""
    if tril.dim() == 2 and deviation.dim() > 1:
        return torch.linalg.solve_triangular(tril.mT, deviation, upper=True, left=False)
    if samples := deviation.shape[: deviation.dim() - tril.dim() + 1]:  # columns of one solve with each factor
        columns = deviation.flatten(0, len(samples) - 1).movedim(0, -1)
        return torch.linalg.solve_triangular(tril, columns, upper=False).movedim(-1, 0).unflatten(0, samples)
    return torch.linalg.solve_triangular(tril, deviation.unsqueeze(-1), upper=False).squeeze(-1)


def low_rank_log_prob(latent: Tensor, loc: Tensor, loading: Tensor, residual: Tensor) -> Tensor:
    """log N(latent; loc, loading loading^T + diag(residual^2)) in O(D R^2).

    latent (S*, B*, D), loc and residual (B*, D), loading (B*, D, R). -> (S*, B*)

    With z = (latent - loc) / residual and A = loading / residual the determinant is |1 + A^T A| prod residual^2 (the
    matrix determinant lemma). Woodbury's z^T (1 + A A^T)^-1 z = z^T z - z^T A (1 + A^T A)^-1 A^T z is the squared
    distance of (z, 0) from the columns of (A, 1) = Q R, in which form nothing is squared before it is subtracted. In
    float64: residuals may be small beside what is shared.
    """
    own = residual.double()
    z = (latent.double() - loc.double()) / own
    q, log_det = _low_rank_split(loading, residual)
    along = (q[..., : loc.shape[-1], :].mT @ z.unsqueeze(-1)).squeeze(-1)
    near = (q @ along.unsqueeze(-1)).squeeze(-1)
    left, shared = z - near[..., : loc.shape[-1]], near[..., loc.shape[-1] :]
    quadratic = left.square().sum(-1) + shared.square().sum(-1)
    return (-0.5 * quadratic - log_det - loc.shape[-1] * HALF_LOG_TWO_PI).to(latent.dtype)


def _low_rank_split(loading: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
    """Q of (A, 1) = Q R, (*B, D + R, R), and half the log determinant of the covariance, (*B)."""
    own = residual.double()
    rank = loading.shape[-1]
    one = torch.eye(rank, dtype=own.dtype, device=own.device).expand(*own.shape[:-1], rank, rank)
    q, r = torch.linalg.qr(torch.cat([loading.double() / own.unsqueeze(-1), one], -2))
    return q, own.log().sum(-1) + r.diagonal(dim1=-2, dim2=-1).abs().log().sum(-1)


def low_rank_entropy(loc: Tensor, loading: Tensor, residual: Tensor, geometry: Geometry) -> Tensor:
    """Entropy of the action in nats, nothing being wrapped or clipped; error below 1e-6. -> (*B)"""
    log_det = _low_rank_split(loading, residual)[1]
    latent = (log_det + geometry.dim * (0.5 + HALF_LOG_TWO_PI)).to(loc.dtype)
    return latent + expected_log_slope(loc, low_rank_scale(loading, residual).expand_as(loc), geometry)


def low_rank_scale(loading: Tensor, residual: Tensor) -> Tensor:
    """Standard deviation of each latent dimension, (*B, D)."""
    return _norm(torch.cat([loading, residual.unsqueeze(-1)], -1))


def low_rank_tril(loading: Tensor, residual: Tensor) -> Tensor:
    """The Cholesky factor of the same covariance, (*B, D, D). In float64, and of rows of norm 1."""
    rows = torch.cat([loading, torch.diag_embed(residual)], -1).double()
    scale = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    return (scale * lower_of(rows / scale)).to(residual.dtype)


def full_log_prob(latent: Tensor, loc: Tensor, tril: Tensor, geometry: Geometry) -> Tensor:
    """Log density of the latent, as the module's docstring has it but for the slopes.

    latent (S*, B*, D), loc (B*, D), both in natural order; tril (B*, D, D), rows in `geometry.order`. -> (S*, B*)
    """
    c = geometry.constants(loc)
    r = len(c.rest)
    total: Tensor | float = 0.0
    whitened = None
    if r:
        head = tril[..., :r, :r]
        whitened = whiten((latent - loc)[..., c.rest], head)
        log_det = head.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        total = total - 0.5 * whitened.square().sum(-1) - log_det - r * HALF_LOG_TWO_PI
    if r < geometry.dim:
        total = total + _tail_log_prob(latent, loc, tril, geometry, whitened)
    assert isinstance(total, Tensor)
    return total


def _tail_log_prob(latent: Tensor, loc: Tensor, tril: Tensor, geometry: Geometry, whitened: Tensor | None) -> Tensor:
    """log p(tail | rest), one or two dimensions. -> (S*, B*)"""
    c = geometry.constants(loc)
    r = len(c.rest)
    tail = c.order[r:]
    mean = loc[..., tail]
    if whitened is not None:
        mean = mean + (tril[..., r:, :r] @ whitened.unsqueeze(-1)).squeeze(-1)
    value, block = latent[..., tail], tril[..., r:, r:]
    first, clips = geometry.kinds[geometry.order[r]], len(c.clipped) > 0
    if len(tail) == 1:
        x, m, s = value[..., 0], mean[..., 0], block[..., 0, 0]
        if clips:
            return censored_log_prob(x, m, s, c.low[tail[0]], c.high[tail[0]])
        return wrapped_normal_log_prob(x - m, s)
    assert first == "wrap"
    a, b, d = block[..., 0, 0], block[..., 1, 0], block[..., 1, 1]
    arc, x, m = shortest_arc(value[..., 0] - mean[..., 0]), value[..., 1], mean[..., 1]
    if clips:
        low, high = c.low[tail[1]], c.high[tail[1]]
        deviation = x - m  # of a point mass: that of the likeliest latent behind it
        deviation = torch.where(x <= low, deviation.clamp(max=0), deviation)
        deviation = torch.where(x >= high, deviation.clamp(min=0), deviation)
        spread = torch.hypot(b, d)  # its square is beyond float32 for boxes of 1e20
        return _lattice(
            arc,
            a,
            b,
            d,
            lambda shift, s: censored_log_prob(x.unsqueeze(-1), m.unsqueeze(-1) + shift, s, low, high),
            centre=(deviation / spread) * a * (b / spread),
        )
    # Of two angles the narrower one is summed over its images: fewer are needed. Swapping refactors the 2 x 2 block.
    other = shortest_arc(x - m)
    wide = torch.hypot(b, d)
    swap = a > wide
    arc, other = torch.where(swap, other, arc), torch.where(swap, arc, other)
    a, b, d = torch.where(swap, wide, a), torch.where(swap, a * b / wide, b), torch.where(swap, a * d / wide, d)
    return _lattice(
        arc,
        a,
        b,
        d,
        lambda shift, s: wrapped_normal_log_prob(other.unsqueeze(-1) - shift, s),
        centre=torch.zeros_like(arc),
    )


MOST_IMAGES = 64


def _lattice(
    arc: Tensor, a: Tensor, b: Tensor, d: Tensor, conditional: Callable[[Tensor, Tensor], Tensor], centre: Tensor
) -> Tensor:
    """log sum_k N(arc + 2 pi k; 0, a^2) p(second | first at that image), the 2 x 2 factor being [[a, 0], [b, d]].

    As many images around `centre`, where the sum has its largest terms, as the widest `a` needs for 6.5 standard
    deviations. An angle wider than 64 images reach (60 rad) is
    uniform beyond what float32 can tell, and independent of the other for any |correlation| <= 0.99.
    """
    widest = float(a.detach().max()) if a.numel() else 0.0
    reach = min(math.ceil((6.5 * widest + math.pi) / TWO_PI), MOST_IMAGES)
    images = torch.arange(-reach, reach + 1, dtype=arc.dtype, device=arc.device) * TWO_PI
    a, b, d = a.unsqueeze(-1), b.unsqueeze(-1), d.unsqueeze(-1)
    narrow = a.clamp(max=60.0)
    nearest = torch.round((centre - arc).detach() / TWO_PI) * TWO_PI
    x = (arc + nearest).unsqueeze(-1) + images
    by_image = normal_log_prob(x, torch.zeros_like(x), narrow) + conditional(b * x / narrow, d.expand_as(x))
    uniform = conditional(torch.zeros_like(arc).unsqueeze(-1), torch.hypot(b, d).expand_as(arc.unsqueeze(-1)))
    return torch.where(a.squeeze(-1) <= 60.0, torch.logsumexp(by_image, -1), uniform.squeeze(-1) - math.log(TWO_PI))


# ------------------------------------------------------------------------------------------------------ entropy


def expected_log_slope(loc: Tensor, scale: Tensor, geometry: Geometry) -> Tensor:
    """sum_i E[log slope_i(u_i)], u_i ~ N(loc_i, scale_i^2). (*B, D) -> (*B)."""
    total = torch.zeros(loc.shape[:-1], dtype=loc.dtype, device=loc.device)
    for group in geometry.constants(loc).groups:
        m, s = (loc, scale) if group.columns is None else (loc[..., group.columns], scale[..., group.columns])
        if group.kind == "squash":
            total = total + (group.log_scale - expected_softplus(m, s) - expected_softplus(-m, s)).sum(-1)
        elif group.kind == "half":
            total = total - expected_softplus(-m, s).sum(-1)
        elif group.kind == "wrap":
            total = total + group.log_scale.sum()
    return total


def diagonal_entropy(loc: Tensor, scale: Tensor, geometry: Geometry) -> Tensor:
    """Entropy of the action in nats, (*B, D) -> (*B); error below 1e-6."""
    c = geometry.constants(loc)
    total = expected_log_slope(loc, scale, geometry)
    if len(c.rest):
        total = total + (scale[..., c.rest].log() + 0.5 + HALF_LOG_TWO_PI).sum(-1)
    if len(c.wrapped):
        total = total + wrapped_normal_entropy(scale[..., c.wrapped]).sum(-1)
    if len(c.clipped):
        k = c.clipped
        total = total + censored_moments(loc[..., k], scale[..., k], c.low[k], c.high[k])[1].sum(-1)
    return total


def full_entropy(loc: Tensor, tril: Tensor, geometry: Geometry) -> Tensor:
    """Entropy of the action in nats; error below 1e-5. loc (*B, D), tril (*B, D, D) in `geometry.order`.

    Raises:
        NotImplementedError: two correlated angles, or an angle correlated with a clipped dimension.
    """
    c = geometry.constants(loc)
    r = len(c.rest)
    total = expected_log_slope(loc, marginal_scale(tril, geometry), geometry)
    log_diagonal = tril.diagonal(dim1=-2, dim2=-1).log()
    if r:
        total = total + (log_diagonal[..., :r] + 0.5 + HALF_LOG_TWO_PI).sum(-1)
    if r == geometry.dim:
        return total
    if r < geometry.dim - 1:
        raise NotImplementedError(
            "Two correlated angles, or an angle correlated with a clipped dimension, have no entropy in closed form.\n"
            "  fix: estimate it, -log_prob of fresh samples averaged: `-p.sample_and_log_prob((n,))[1].mean(0)`"
        )
    scale = tril[..., r, r]
    if len(c.wrapped):
        return total + wrapped_normal_entropy(scale)
    # Censored: the entropy depends on the conditional mean, which is normal; trapezoid over +-8 of its deviations.
    k = c.clipped[0]
    eps = torch.linspace(-8, 8, 257, dtype=loc.dtype, device=loc.device)
    weight = (-0.5 * eps.square() - HALF_LOG_TWO_PI).exp() / 16
    spread = _norm(tril[..., r, :r]).unsqueeze(-1)
    mean = loc[..., k].unsqueeze(-1) + spread * eps
    each = censored_moments(mean, scale.unsqueeze(-1), c.low[k], c.high[k])[1]
    return total + (each * weight).sum(-1)


def marginal_scale(tril: Tensor, geometry: Geometry) -> Tensor:
    """Standard deviation of each latent dimension in natural order. (*B, D, D) -> (*B, D)."""
    return _norm(tril)[..., geometry.constants(tril).unorder]


def lower_of(rows: Tensor) -> Tensor:
    """The lower Cholesky factor of rows rows^T, without squaring, so that nothing is lost where scales differ widely:
    rows^T = Q R, so that rows rows^T = R^T R. (*B, D, K) with K >= D -> (*B, D, D)."""
    upper = torch.linalg.qr(rows.mT).R
    return (upper * upper.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-1)).mT


def _norm(x: Tensor) -> Tensor:
    """Norm along the last dimension; in float64, since the squares of deviations of 1e20 are beyond float32."""
    return torch.linalg.vector_norm(x, dim=-1, dtype=torch.float64).to(x.dtype)
