"""What learning online and learning from rollouts have in common, as kernels: Adam, acting, and how a score's slope
becomes a gradient.

The formulas stand in `covary.optim`, `covary.algorithms` and `covary.nets`; everything is changed in place, in the
memory of the modules' own parameters and buffers.
"""

from __future__ import annotations

import math

from numba import float32, float64, int64, void

from covary.fast.compiled import Indices, Matrix, Numbers, Rows, Table, Vector, kernel, part
from covary.fast.dense import forward
from covary.fast.densities import (
    ANGLES,
    CHOICES,
    COUPLING,
    COUPLINGS,
    DEPTH,
    LEARNED,
    LOG_STD,
    PER_STATE,
    TOP,
    D,
    centre_of,
    draw,
    spread_of,
)

_ONE, _ZERO = float32(1.0), float32(0.0)
POLICY = (Vector, Rows, Indices, Rows, Table, Table)  # parameters, layers, plan, dims, box, given
REWARD, DISCOUNT, LAM, VALID, SCALED = range(5)  # rows of a table of steps
ADAM = (Vector, Vector, Vector, Indices, Numbers, Numbers)  # gradient, first, second, segments, rates, settings


@part(float64(Vector))
def reach(parameters):
    """0, or NaN where one is not finite."""
    total = _ZERO
    for j in range(len(parameters)):
        total += _ZERO * parameters[j]
    return float64(total)


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


@part(void(*POLICY[:1], *POLICY[2:], Matrix, int64, Table, Table))
def locate(parameters, plan, dims, box, given, outputs, b, loc, spread):
    """What `score` and `draw` need of column b; a covariance that does not depend on the state is made for the first
    column and then kept."""
    centre_of(plan, dims, box, outputs, plan[TOP], b, loc)
    if b == 0 or plan[PER_STATE]:
        spread_of(parameters, plan, dims, box, given, outputs, plan[TOP], b, spread)


@part(void(Indices, int64, Numbers, float64, Matrix, Vector))
def weigh(plan, b, slope, weight, out, gradient):
    """Hands weight times the slope of a score to the outputs of column b and, where the covariance has parameters of
    its own, to their gradient, in which column 0 is the first."""
    outputs = plan[CHOICES] if plan[CHOICES] else plan[D] + plan[ANGLES]
    more = plan[D] + plan[COUPLINGS] if plan[LEARNED] else 0
    for k in range(outputs + (more if plan[PER_STATE] else 0)):
        out[plan[TOP] + k, b] = float32(weight * slope[k])
    if plan[LEARNED] and not plan[PER_STATE]:
        for k in range(more):
            j = plan[LOG_STD] + k if k < plan[D] else plan[COUPLING] + k - plan[D]
            gradient[j] = (gradient[j] if b > 0 else _ZERO) + float32(weight * slope[outputs + k])


@part(float64(Indices, Matrix, int64, float64, Matrix))
def add_entropy(plan, outputs, b, weight, out):
    """Entropy of a Categorical's column b; its slope times weight is added to that of the outputs."""
    at = plan[TOP]
    most = outputs[at, b]
    for k in range(1, plan[CHOICES]):
        most = max(most, outputs[at + k, b])
    total = 0.0
    for k in range(plan[CHOICES]):
        total += math.exp(float64(outputs[at + k, b] - most))
    entropy = 0.0
    for k in range(plan[CHOICES]):
        log_p = float64(outputs[at + k, b] - most) - math.log(total)
        entropy -= math.exp(log_p) * log_p
    for k in range(plan[CHOICES]):
        log_p = float64(outputs[at + k, b] - most) - math.log(total)
        out[plan[TOP] + k, b] -= float32(weight * math.exp(log_p) * (log_p + entropy))
    return entropy


@part(void(Matrix, int64, Vector, Vector, float64, Matrix, int64))
def normalize(obs, row, mean, inv_std, clip, work, column):
    """Row of obs -> column of the network's inputs, standardised."""
    bound = float32(clip)
    for k in range(obs.shape[1]):
        x = (obs[row, k] - mean[k]) * inv_std[k]
        work[k, column] = -bound if x < -bound else (bound if x > bound else x)


@part(void(Matrix, Matrix, int64, Numbers, Numbers, Numbers, Vector, Vector))
def observe(obs, steps, n, count, mean64, m2, mean, inv_std):
    """`covary.nets.RunningNorm.update` with the rows of obs that happened."""
    seen = 0.0
    for b in range(n):
        seen += steps[VALID, b]
    total = count[0] + seen
    for k in range(obs.shape[1]):
        new = 0.0
        for b in range(n):
            new += float64(obs[b, k]) * steps[VALID, b]
        new /= seen
        squares = 0.0
        for b in range(n):
            squares += (float64(obs[b, k]) - new) ** 2 * steps[VALID, b]
        delta = new - mean64[k]
        m2[k] += squares + delta * delta * (count[0] * seen / total)
        mean64[k] += delta * (seen / total)
        if total >= 10.0:
            mean[k] = mean64[k]
            inv_std[k] = 1.0 / math.sqrt(m2[k] / total + 1e-8)
    count[0] = total


@kernel(void(*POLICY, Vector, Vector, float64, Matrix, Matrix, Matrix, Matrix, Matrix, Table, Table))
def act(
    parameters, layers, plan, dims, box, given, mean, inv_std, clip, obs, noise, latents, actions, work, loc, spread
):
    """Fills latents and actions, a row for each of obs, from the rows of noise."""
    n = len(obs)
    for b in range(n):
        normalize(obs, b, mean, inv_std, clip, work, b)
    forward(parameters, layers, 0, plan[DEPTH], work, n)
    for b in range(n):
        locate(parameters, plan, dims, box, given, work, b, loc, spread)
        draw(plan, dims, box, work, plan[TOP], b, noise, b, loc, spread, latents, actions)
