"""One-dimensional mathematics that the joint density is put together from.

Everything here is a pure function of tensors that broadcast against each other, exact or by a quadrature whose error
is stated, and safe in float32 from scales of 1e-6 to 1e4 and locations of +-1e4: value and gradient stay finite.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

TWO_PI = 2 * math.pi
HALF_LOG_TWO_PI = 0.5 * math.log(TWO_PI)


def normal_log_prob(x: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    """log N(x; loc, scale^2)."""
    return -0.5 * ((x - loc) / scale).square() - scale.log() - HALF_LOG_TWO_PI


class _LogNdtr(torch.autograd.Function):
    """log Phi(x). torch.special.log_ndtr has a wrong float32 gradient in the lower tail (64,930 at -1e4)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        lower = x.clamp(max=0)
        tail = torch.special.erfcx(-lower / math.sqrt(2)).div(2).log() - 0.5 * lower.square()
        bulk = torch.log1p(-0.5 * torch.erfc(x.clamp(min=0) / math.sqrt(2)))
        return torch.where(x < 0, tail, bulk)

    @staticmethod
    def setup_context(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return grad * _Hazard.apply(x)


class _Hazard(torch.autograd.Function):
    """h(x) = phi(x) / Phi(x), the slope of log Phi; about -x far below zero. Autograd through erfcx cancels there."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return math.sqrt(2 / math.pi) / torch.special.erfcx(-x / math.sqrt(2))

    @staticmethod
    def setup_context(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs, output)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> Tensor:
        x, h = ctx.saved_tensors  # type: ignore[attr-defined]
        far = x.clamp(max=-20).square().reciprocal()
        return grad * torch.where(x < -20, -1 + far - 6 * far.square(), -h * (x + h))


def log_ndtr(x: Tensor) -> Tensor:
    """log of the standard normal's distribution function, with a gradient that is right in the tail."""
    return _LogNdtr.apply(x)


# ---------------------------------------------------------------------------------------------------- circle


def shortest_arc(angle: Tensor) -> Tensor:
    """The same angle in [-pi, pi)."""
    return torch.remainder(angle + math.pi, TWO_PI) - math.pi


def wrapped_normal_log_prob(angle: Tensor, scale: Tensor) -> Tensor:
    """log density of the wrapped normal WN(0, scale^2) at any real angle (radians; a period changes nothing).

    Summed over five images where scale < 1.5, else by six terms of the Fourier series
    (1 + 2 sum_n exp(-n^2 scale^2 / 2) cos(n angle)) / 2 pi (Mardia & Jupp 2000, eq. 3.5.64): either is exact to 1e-11.
    """
    arc = shortest_arc(angle)
    narrow = scale.clamp(max=1.5)
    images = torch.arange(-2, 3, dtype=arc.dtype, device=arc.device) * TWO_PI
    by_images = torch.logsumexp(-0.5 * ((arc.unsqueeze(-1) + images) / narrow.unsqueeze(-1)).square(), -1)
    by_images = by_images - narrow.log() - HALF_LOG_TWO_PI
    wide = scale.clamp(min=1.5)
    n = torch.arange(1, 7, dtype=arc.dtype, device=arc.device)
    series = ((-0.5 * (n * wide.unsqueeze(-1)).square()).exp() * (n * arc.unsqueeze(-1)).cos()).sum(-1)
    by_series = torch.log1p(2 * series) - math.log(TWO_PI)
    return torch.where(scale < 1.5, by_images, by_series)


def wrapped_normal_entropy(scale: Tensor) -> Tensor:
    """Entropy in nats of WN(., scale^2) on the circle; error below 1e-8.

    Below 0.5 it is the normal's own (the wrapped mass is 3e-10); above, the periodic trapezoid, whose error vanishes
    faster than any power of its step.
    """
    narrow = 0.5 + HALF_LOG_TWO_PI + scale.clamp(max=0.5).log()
    wide = scale.clamp(min=0.5).unsqueeze(-1)
    angles = torch.arange(64, dtype=scale.dtype, device=scale.device) * (TWO_PI / 64)
    log_p = wrapped_normal_log_prob(angles, wide)
    by_trapezoid = -(log_p.exp() * log_p).sum(-1) * (TWO_PI / 64)
    return torch.where(scale < 0.5, narrow, by_trapezoid)


# ------------------------------------------------------------------------------- slopes of squash and softplus


@lru_cache
@torch.inference_mode(False)  # what is kept must also serve autograd
def _nodes(rule: str, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Nodes and weights: 'normal' integrates against N(0, 1), 'decay' over [0, 40]."""
    if rule == "normal":
        x, w = np.polynomial.hermite_e.hermegauss(32)
        w = w / math.sqrt(TWO_PI)
    else:
        x, w = np.polynomial.legendre.leggauss(64)
        x, w = 20 * (x + 1), 20 * w
    return torch.as_tensor(x, dtype=dtype, device=device), torch.as_tensor(w, dtype=dtype, device=device)


def _split(loc: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """What both expectations need: Hermite nodes (scale <= 1.5) and, for wide scales, densities at +-u on [0, 40]."""
    eps, weight = _nodes("normal", loc.dtype, loc.device)
    x = loc.unsqueeze(-1) + scale.clamp(max=1.5).unsqueeze(-1) * eps
    u, du = _nodes("decay", loc.dtype, loc.device)
    wide = scale.clamp(min=1.5)
    up = normal_log_prob(u, loc.unsqueeze(-1), wide.unsqueeze(-1)).exp()
    down = normal_log_prob(-u, loc.unsqueeze(-1), wide.unsqueeze(-1)).exp()
    return x, weight, u, du, up, down, wide, loc / wide


def expected_softplus(loc: Tensor, scale: Tensor) -> Tensor:
    """E[softplus(u)], u ~ N(loc, scale^2); relative error below 1e-7.

    Gauss-Hermite up to scale 1.5; beyond, E[max(u, 0)] in closed form plus the integral of what softplus adds to it.
    """
    loc, scale = torch.broadcast_tensors(loc, scale)
    x, weight, u, du, up, down, wide, a = _split(loc, scale)
    narrow = (F.softplus(x) * weight).sum(-1)
    relu = wide * ((-0.5 * a.square() - HALF_LOG_TWO_PI).exp() + a * torch.special.ndtr(a))
    rest = (torch.log1p(torch.exp(-u)) * (up + down) * du).sum(-1)
    return torch.where(scale <= 1.5, narrow, relu + rest)


def expected_sigmoid(loc: Tensor, scale: Tensor) -> Tensor:
    """E[sigmoid(u)], u ~ N(loc, scale^2); error below 1e-7. The derivative of `expected_softplus` in loc."""
    loc, scale = torch.broadcast_tensors(loc, scale)
    x, weight, u, du, up, down, _, a = _split(loc, scale)
    narrow = (torch.sigmoid(x) * weight).sum(-1)
    rest = (torch.sigmoid(-u) * (down - up) * du).sum(-1)
    return torch.where(scale <= 1.5, narrow, torch.special.ndtr(a) + rest)


# -------------------------------------------------------------------------------------------------- censored


def censored_log_prob(x: Tensor, loc: Tensor, scale: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Log density inside (low, high), log of the point mass at a bound (Fujita & Maeda 2018, eq. 4).

    x: values in [low, high]; low and high may be infinite.
    """
    at_low, at_high = x <= low, x >= high
    outside = at_low | at_high
    edge = torch.where(at_low, low - loc, loc - high)
    mass = log_ndtr(torch.where(outside, edge, torch.zeros_like(edge)) / scale)
    return torch.where(outside, mass, normal_log_prob(torch.where(outside, loc, x), loc, scale))


def censored_moments(loc: Tensor, scale: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of min(max(u, low), high), and its entropy in nats.

    The entropy is that of the mixed measure: - P log P for each point mass, plus the interior's differential part
    Z log(scale sqrt(2 pi)) + (Z + a phi(a) - b phi(b)) / 2, where a, b are the standardised bounds and Z lies between.
    """
    a, b = _standardised(low, loc, scale), _standardised(high, loc, scale)
    log_below, log_above = log_ndtr(a), log_ndtr(-b)
    below, above = log_below.exp(), log_above.exp()
    inside = 1 - below - above
    phi_a, phi_b = (-0.5 * a.square() - HALF_LOG_TWO_PI).exp(), (-0.5 * b.square() - HALF_LOG_TWO_PI).exp()
    zero = torch.zeros_like(low)
    mean = (
        torch.where(low.isinf(), zero, low) * below
        + torch.where(high.isinf(), zero, high) * above
        + loc * inside
        + scale * (phi_a - phi_b)
    )
    interior = inside * (scale.log() + HALF_LOG_TWO_PI) + 0.5 * (inside + a * phi_a - b * phi_b)
    return mean, interior - below * log_below - above * log_above


def _standardised(bound: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    """(bound - loc) / scale held to +-50; an infinite bound has gradient 0 there, not NaN."""
    infinite = bound.isinf()
    z = (torch.where(infinite, torch.zeros_like(bound), bound) - loc) / scale
    return torch.where(infinite, 50 * bound.sign(), z.clamp(-50, 50))
