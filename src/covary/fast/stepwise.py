"""What kernels that learn from each step as it comes have in common. The formulas stand in `covary.returns`,
`covary.nets` and `covary.distributions`."""

from __future__ import annotations

import math

from numba import float32, float64, int64, void

from covary.fast.compiled import Indices, Matrix, Numbers, Rows, Table, Vector, part
from covary.fast.dense import backward, forward
from covary.fast.densities import DEPTH, HALF, HIGH, KIND, LOW, SQUASH, TOP, TWO_PI, VALUE, WRAP, D, score
from covary.fast.running import DISCOUNT, REWARD, SCALED
from covary.fast.steps import POLICY, locate, normalize

BAD_STEP, LEARNED, REFUSED = range(3)
"""What a step's kernel says: a number of the step is not finite; it has learned; one that it made itself is not
finite."""
GAMMA, ENTROPY_COEF, SCALE_REWARDS = range(3)
INFINITE = math.inf
STEP = (Matrix, Matrix, Matrix, Matrix)  # obs, latents, steps, next_obs
NORMALIZER = (Numbers, Numbers, Numbers, Vector, Vector, float64)  # count, mean64, m2, mean, inv_std, clip
ROOM = (Matrix, Matrix, Table, Table, Numbers)  # work, slope, loc, spread, direction


@part(float64(Matrix, Matrix))
def look(steps, next_obs):
    """0, or NaN where a reward or an observation is not finite. The row SCALED is filled with the rewards."""
    total = 0.0
    for b in range(len(next_obs)):
        total += 0.0 * steps[REWARD, b]
        for k in range(next_obs.shape[1]):
            total += 0.0 * next_obs[b, k]
        steps[SCALED, b] = steps[REWARD, b]
    return total


@part(float64(Indices, Rows, Table, Matrix, int64))
def log_jacobian(plan, dims, box, latents, sample):
    """What `score` leaves out: sum log |da/du|."""
    total = 0.0
    for i in range(plan[D]):
        kind, u = dims[i, KIND], float64(latents[sample, i])
        if kind in (SQUASH, HALF):
            total -= max(-u, 0.0) + math.log1p(math.exp(-abs(u)))
        if kind == SQUASH:
            total += math.log(box[i, HIGH] - box[i, LOW]) - max(u, 0.0) - math.log1p(math.exp(-abs(u)))
        if kind == WRAP:
            total += math.log((box[i, HIGH] - box[i, LOW]) / TWO_PI)
    return total


@part(float64(*POLICY, Vector, Vector, float64, *STEP, *ROOM, int64, Numbers))
def judge(
    parameters,
    layers,
    plan,
    dims,
    box,
    given,
    mean,
    inv_std,
    clip,
    obs,
    latents,
    steps,
    next_obs,
    work,
    slope,
    loc,
    spread,
    direction,
    b,
    out,
):
    """The TD error of environment b, in the networks' first column, where everything at s is then found; its
    log-probability is written to out[0] and that one's slope to `direction`."""
    normalize(next_obs, b, mean, inv_std, clip, work, 0)
    forward(parameters, layers, plan[DEPTH], len(layers), work, 1)
    next_value = work[plan[VALUE], 0]
    normalize(obs, b, mean, inv_std, clip, work, 0)
    forward(parameters, layers, 0, len(layers), work, 1)
    locate(parameters, plan, dims, box, given, work, 0, loc, spread)
    out[0] = score(plan, dims, box, work, plan[TOP], 0, latents, b, loc, spread, direction)
    out[0] -= log_jacobian(plan, dims, box, latents, b)
    return float64(steps[SCALED, b] + steps[DISCOUNT, b] * next_value - work[plan[VALUE], 0])


@part(void(Vector, Rows, Indices, Matrix, Matrix, Vector, Vector))
def remember(parameters, layers, plan, work, slope, gradient, trace):
    """trace += grad (log pi + V), from the slopes of the policy's outputs; `gradient` holds those of what is learned
    and no network puts out."""
    slope[plan[VALUE], 0] = 1.0
    backward(parameters, layers, 0, len(layers), work, slope, gradient, 1)
    for j in range(len(trace)):
        trace[j] += gradient[j]


@part(void(Vector, Indices, Numbers, float64))
def fade(trace, segments, lams, weight):
    """trace <- weight lambda trace, each segment by its own lambda."""
    begin = 0
    for k in range(len(segments)):
        keep = float32(weight * lams[k])
        for j in range(begin, begin + segments[k]):
            trace[j] *= keep
        begin += segments[k]
