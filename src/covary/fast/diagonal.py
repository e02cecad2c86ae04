"""Drawing from a diagonal Gaussian on a box, its log-probability, and the way back through the draw, as kernels.

u = loc + std eps; log p = -eps^2 / 2 - log std - log(2 pi) / 2 - log |da/du|, summed over the dimensions. Kinds are
those of `covary.distributions.geometry`; those with a law of their own, wrapped and clipped, are left to autograd.
"""

from __future__ import annotations

import math

from numba import float32, float64, int64, void

from covary.fast.compiled import Indices, Matrix, Vector, kernel, part

FREE, SQUASH, HALF = range(3)
LOW, HIGH = float32(-9.0), float32(6.0)  # of log std relative to its start, as in `covary.heads`
HALF_LOG_TWO_PI, LOG_TWO = float32(0.5 * math.log(2 * math.pi)), float32(math.log(2))
_ONE, _HALF, _ZERO = float32(1.0), float32(0.5), float32(0.0)
BOX = (Vector, Vector, Vector, Vector, Vector, Vector, Indices)
"""(D,) each: offset and gain of loc, the first log std, origin and unit of a coordinate, log of the width, kind."""


@part(float32(float32))
def softplus(x):
    return max(x, _ZERO) + math.log1p(math.exp(-abs(x)))


@part(float32(float32))
def sigmoid(x):
    y = math.exp(-abs(x))
    return _ONE / (_ONE + y) if x >= _ZERO else y / (_ONE + y)


@kernel(void(Matrix, Vector, int64, Matrix, *BOX, Matrix, Matrix, Vector))
def draw(outputs, own, per_state, noise, offset, gain, base, origin, unit, log_width, kinds, latent, seen, log_prob):
    """outputs: (B, D) or (B, 2 D) of the head; own: (D,) log std where it does not depend on the state; noise: (B, D).
    Writes latent, seen (B, D), the coordinates, and log_prob (B,)."""
    for b in range(len(noise)):
        total = _ZERO
        for i in range(len(kinds)):
            raw = outputs[b, len(kinds) + i] if per_state else own[i]
            log_std = base[i] + min(max(raw, LOW), HIGH)
            e = noise[b, i]
            u = offset[i] + gain[i] * outputs[b, i] + math.exp(log_std) * e
            total -= _HALF * e * e + log_std + HALF_LOG_TWO_PI
            latent[b, i] = u
            if kinds[i] == SQUASH:
                seen[b, i] = math.tanh(_HALF * u)
                total -= log_width[i] - softplus(u) - softplus(-u)
            elif kinds[i] == HALF:
                seen[b, i] = (softplus(u) - LOG_TWO - origin[i]) / unit[i]
                total += softplus(-u)
            else:
                seen[b, i] = (u - origin[i]) / unit[i]
        log_prob[b] = total


@kernel(void(Matrix, Vector, int64, Matrix, *BOX, Matrix, Matrix, Matrix, float64, Matrix, Vector))
def back(
    outputs,
    own,
    per_state,
    noise,
    offset,
    gain,
    base,
    origin,
    unit,
    log_width,
    kinds,
    latent,
    seen,
    to_seen,
    weight,
    to_outputs,
    to_own,
):
    """The slope of weight * sum(log_prob) + sum(to_seen * seen) in the outputs, and in `own`."""
    w = float32(weight)
    to_own[:] = _ZERO
    for b in range(len(noise)):
        for i in range(len(kinds)):
            raw = outputs[b, len(kinds) + i] if per_state else own[i]
            u = latent[b, i]
            if kinds[i] == SQUASH:
                c = seen[b, i]
                to_u = w * c + to_seen[b, i] * _HALF * (_ONE - c * c)
            elif kinds[i] == HALF:
                to_u = to_seen[b, i] * sigmoid(u) / unit[i] - w * sigmoid(-u)
            else:
                to_u = to_seen[b, i] / unit[i]
            to_outputs[b, i] = to_u * gain[i]
            inside = LOW <= raw <= HIGH
            to_log_std = to_u * math.exp(base[i] + min(max(raw, LOW), HIGH)) * noise[b, i] - w if inside else _ZERO
            if per_state:
                to_outputs[b, len(kinds) + i] = to_log_std
            else:
                to_own[i] += to_log_std
