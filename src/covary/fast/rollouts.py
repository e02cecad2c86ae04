"""One epoch of PPO as a kernel. The formulas stand in `covary.algorithms.ppo`."""

from __future__ import annotations

import math

from numba import float64, int64, void

from covary.fast.compiled import Indices, Matrix, Numbers, Table, Vector, kernel
from covary.fast.dense import backward, forward
from covary.fast.densities import DEPTH, TOP, VALUE, score
from covary.fast.steps import ADAM, DISCOUNT, LAM, POLICY, SCALED, adam, add_entropy, locate, normalize, observe, weigh


@kernel(void(*POLICY, Matrix, Matrix, Matrix, Vector, Table, Table, Numbers))
def log_probs(parameters, layers, plan, dims, box, given, x, latents, work, out, loc, spread, slope):
    """out[i] = log p(latents[i] | x[i]), up to the geometry's Jacobian. x: (B, O), latents: (B, D)."""
    most = work.shape[1]
    for start in range(0, len(out), most):
        n = min(most, len(out) - start)
        for b in range(n):
            for k in range(x.shape[1]):
                work[k, b] = x[start + b, k]
        forward(parameters, layers, 0, plan[DEPTH], work, n)
        for b in range(n):
            locate(parameters, plan, dims, box, given, work, b, loc, spread)
            out[start + b] = score(plan, dims, box, work, plan[TOP], b, latents, start + b, loc, spread, slope)


LOG_PROB, ADVANTAGE, TARGET, OLD_VALUE = range(4)  # rows of what `estimates` makes


@kernel(
    void(
        *(*POLICY, Vector, Vector, float64),
        *(Matrix, Matrix, Matrix, Matrix, int64, float64),
        *(Matrix, Matrix, Indices, Matrix, Table, Table, Numbers),
    )
)
def estimates(
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
    next_obs,
    latents,
    steps,
    n,
    lam,
    x,
    made,
    rows,
    work,
    loc,
    spread,
    direction,
):
    """`covary.advantages.estimate`, over T steps of n environments: B = T n, time-major. obs, next_obs: (B, O) raw;
    steps: (5, B), with the rewards to learn from in its row SCALED. Fills x (B, O) and made (4, B); rows: (B,) to work
    in."""
    size, most, ends = len(obs), work.shape[1], 0
    for start in range(0, size, most):
        m = min(most, size - start)
        for b in range(m):
            normalize(obs, start + b, mean, inv_std, clip, work, b)
            for k in range(obs.shape[1]):
                x[start + b, k] = work[k, b]
        forward(parameters, layers, 0, len(layers), work, m)
        for b in range(m):
            locate(parameters, plan, dims, box, given, work, b, loc, spread)
            made[LOG_PROB, start + b] = score(
                plan, dims, box, work, plan[TOP], b, latents, start + b, loc, spread, direction
            )
            made[OLD_VALUE, start + b] = work[plan[VALUE], b]
    # Where a step led is where the next one starts, but at the end of the rollout and where an episode was cut.
    for i in range(size):
        if i + n < size and steps[LAM, i] > 0.0:
            made[TARGET, i] = made[OLD_VALUE, i + n]
        else:
            rows[ends] = i
            ends += 1
    for start in range(0, ends, most):
        m = min(most, ends - start)
        for b in range(m):
            normalize(next_obs, rows[start + b], mean, inv_std, clip, work, b)
        forward(parameters, layers, plan[DEPTH], len(layers), work, m)
        for b in range(m):
            made[TARGET, rows[start + b]] = work[plan[VALUE], b]
    for i in range(size - 1, -1, -1):
        value, discount = float64(made[OLD_VALUE, i]), float64(steps[DISCOUNT, i])
        advantage = steps[SCALED, i] + discount * made[TARGET, i] - value
        if i + n < size:
            advantage += discount * lam * steps[LAM, i] * made[ADVANTAGE, i + n]
        made[ADVANTAGE, i] = advantage
        made[TARGET, i] = advantage + value


@kernel(void(Matrix, Matrix, Numbers, Numbers, Numbers, Vector, Vector))
def show(obs, steps, count, mean64, m2, mean, inv_std):
    """The rows of obs (B, O) that happened, to the normaliser. steps: (5, B)."""
    observe(obs, steps, len(obs), count, mean64, m2, mean, inv_std)


_WORK = (Matrix, Matrix, Numbers)  # work, slope, sums
SETTINGS = (float64, Indices, int64)  # steps of Adam before, the order of transitions, those in a minibatch


@kernel(
    void(
        *(*POLICY, *ADAM, *SETTINGS),
        *(Matrix, Matrix, Vector, Vector, float64, float64),
        *(*_WORK, Table, Table, Numbers),
    )
)
def policy_epoch(
    parameters,
    layers,
    plan,
    dims,
    box,
    given,
    gradient,
    first,
    second,
    segments,
    rates,
    settings,
    taken,
    order,
    minibatch,
    x,
    latents,
    log_prob,
    advantage,
    clip,
    entropy_coef,
    work,
    slope,
    sums,
    loc,
    spread,
    direction,
):
    """One pass of the policy over B transitions in this order, a step for each minibatch.

    x: (B, O) normalised; latents: (B, D). sums: the loss without its entropy, the norm and one are added for each.
    A norm that is not finite moves nothing, and stays in the sum for whoever looks.
    """
    for start in range(0, len(order), minibatch):
        n = min(minibatch, len(order) - start)
        for b in range(n):
            for k in range(x.shape[1]):
                work[k, b] = x[order[start + b], k]
        forward(parameters, layers, 0, plan[DEPTH], work, n)
        loss, bonus = 0.0, entropy_coef / n
        for b in range(n):
            row = order[start + b]
            locate(parameters, plan, dims, box, given, work, b, loc, spread)
            now = score(plan, dims, box, work, plan[TOP], b, latents, row, loc, spread, direction)
            ratio = math.exp(now - log_prob[row])
            clipped = 1.0 - clip if ratio < 1.0 - clip else (1.0 + clip if ratio > 1.0 + clip else ratio)
            gain = float64(advantage[row])
            active = not ratio * gain > clipped * gain  # NaN goes through
            weigh(plan, b, direction, -gain * ratio / n if active else 0.0, slope, gradient)
            loss -= (ratio * gain if active else clipped * gain) / n
            if bonus > 0.0:
                add_entropy(plan, work, b, -bonus, slope)
        backward(parameters, layers, 0, plan[DEPTH], work, slope, gradient, n)
        sums[0] += loss
        sums[1] += adam(parameters, gradient, first, second, segments, rates, settings, 0, taken + sums[2])
        sums[2] += 1.0


@kernel(void(*(*POLICY[:3], *ADAM, *SETTINGS), *(Matrix, Vector), *_WORK))
def value_epoch(
    parameters,
    layers,
    plan,
    gradient,
    first,
    second,
    segments,
    rates,
    settings,
    taken,
    order,
    minibatch,
    x,
    target,
    work,
    slope,
    sums,
):
    """The same of the critic, towards target (B,). The two share nothing, so that they may run beside each other."""
    value = plan[VALUE]
    for start in range(0, len(order), minibatch):
        n = min(minibatch, len(order) - start)
        for b in range(n):
            for k in range(x.shape[1]):
                work[k, b] = x[order[start + b], k]
        forward(parameters, layers, plan[DEPTH], len(layers), work, n)
        loss = 0.0
        for b in range(n):
            error = work[value, b] - target[order[start + b]]
            slope[value, b] = error / n
            loss += 0.5 * error * error / n
        backward(parameters, layers, plan[DEPTH], len(layers), work, slope, gradient, n)
        sums[0] += loss
        sums[1] += adam(parameters, gradient, first, second, segments, rates, settings, 1, taken + sums[2])
        sums[2] += 1.0
