"""Adam's step and a target's, as kernels: one pass over the memory in place of one for each operation.

The formulas stand in `covary.optim`; everything is changed in place.
"""

from __future__ import annotations

import math

from numba import boolean, float32, float64, int64, void

from covary.fast.compiled import Indices, Numbers, Vector, kernel, part

_ONE = float32(1.0)
ADAM = (Vector, Vector, Vector, Indices, Numbers, Numbers)  # gradient, first, second, segments, rates, settings


@part(float64(Vector, Indices, int64))
def norm_of(gradient, segments, k):
    """Of the gradient's segment k."""
    begin = 0
    for before in range(k):
        begin += segments[before]
    grad = gradient[begin : begin + segments[k]]  # indices from 0 are known not to be negative
    square = float32(0.0)
    for j in range(len(grad)):
        square += grad[j] * grad[j]
    return math.sqrt(float64(square))


@part(void(Vector, *ADAM, int64, float64, float64))
def move(parameters, gradient, first, second, segments, rates, settings, k, taken, norm):
    """One step of `covary.optim.Adam` for segment k, whose gradient has this norm, `taken` steps after the first.
    settings: max_norm, share of the rate, beta1, beta2, eps."""
    max_norm, share, beta1, beta2 = settings[0], settings[1], settings[2], settings[3]
    from_first, from_second = float32(1.0 - beta1), float32(1.0 - beta2)
    keep_second, eps = float32(beta2), float32(settings[4])
    begin = 0
    for before in range(k):
        begin += segments[before]
    end = begin + segments[k]
    grad, p = gradient[begin:end], parameters[begin:end]
    m, v = first[begin:end], second[begin:end]
    factor = float32(min(max_norm / (norm + 1e-6), 1.0)) if max_norm > 0.0 else _ONE
    root = float32(1.0 - beta2 ** (taken + 1.0))
    rate = float32(rates[k] * share / (1.0 - beta1 ** (taken + 1.0)))
    for j in range(len(grad)):
        g = grad[j] * factor
        m_t = m[j] + (g - m[j]) * from_first
        v_t = v[j] * keep_second + from_second * (g * g)
        m[j] = m_t
        v[j] = v_t
        p[j] -= rate * m_t / (math.sqrt(v_t / root) + eps)


@part(float64(Vector, *ADAM, int64, float64))
def adam(parameters, gradient, first, second, segments, rates, settings, k, taken):
    """A step for segment k, unless the norm of its gradient is not finite. That norm, before it is clipped."""
    norm = norm_of(gradient, segments, k)
    if norm < math.inf:  # which NaN is not
        move(parameters, gradient, first, second, segments, rates, settings, k, taken, norm)
    return norm


@kernel(boolean(Vector, *ADAM, Numbers, Numbers))
def descend(parameters, gradient, first, second, segments, rates, settings, taken, norms):
    """A step for every segment, unless a norm is not finite; norms: (segments,) are written. Whether it was made."""
    total = 0.0
    for k in range(len(segments)):
        norms[k] = norm_of(gradient, segments, k)
        total += norms[k]
    if not total < math.inf:
        return False
    for k in range(len(segments)):
        move(parameters, gradient, first, second, segments, rates, settings, k, taken[0], norms[k])
    taken[0] += 1.0
    return True


@kernel(void(Vector, Vector, float64))
def follow(target, source, tau):
    """target <- target + tau (source - target)."""
    share = float32(tau)
    for j in range(len(target)):
        target[j] += share * (source[j] - target[j])
