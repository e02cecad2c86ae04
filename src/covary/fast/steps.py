"""What learning online and learning from rollouts have in common, as kernels: acting, and how a score's slope becomes a
gradient.

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

_ZERO = float32(0.0)
POLICY = (Vector, Rows, Indices, Rows, Table, Table)  # parameters, layers, plan, dims, box, given


@part(float64(Vector))
def reach(parameters):
    """0, or NaN where one is not finite."""
    total = _ZERO
    for j in range(len(parameters)):
        total += _ZERO * parameters[j]
    return float64(total)


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
