"""Learning from a rollout of PPO, A2C or TRPO, as kernels: log-probabilities, a pass of the policy, one of the critic.
The formulas stand in `covary.algorithms.ppo`."""

from __future__ import annotations

import math

from numba import float64, int64, void

from covary.fast.compiled import Indices, Matrix, Numbers, Table, Vector, kernel
from covary.fast.dense import backward, forward
from covary.fast.densities import DEPTH, TOP, VALUE, score
from covary.fast.descent import ADAM, adam
from covary.fast.steps import POLICY, add_entropy, locate, weigh


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
