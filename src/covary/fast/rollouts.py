"""One epoch of PPO as a kernel. The formulas stand in `covary.algorithms.ppo`."""

from __future__ import annotations

import math

from numba import float64, int64, void

from covary.fast.compiled import Indices, Matrix, Numbers, Table, Vector, kernel
from covary.fast.dense import backward, forward
from covary.fast.densities import DEPTH, TOP, VALUE, score
from covary.fast.steps import ADAM, POLICY, adam, add_entropy, clear, locate, weigh


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


@kernel(
    void(
        *(*POLICY, *ADAM),
        *(Matrix, Matrix, Vector, Vector, Vector, Indices, int64, float64, float64),
        *(Matrix, Matrix, Table, Table, Numbers, Numbers),
    )
)
def epoch(
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
    norms,
    x,
    latents,
    log_prob,
    advantage,
    target,
    order,
    minibatch,
    clip,
    entropy_coef,
    work,
    slope,
    loc,
    spread,
    direction,
    sums,
):
    """One pass of `covary.algorithms.ppo` over B transitions in this order, a step for each minibatch.

    x: (B, O) normalised; latents: (B, D). sums: actor loss, critic loss, the two norms and one are added to it
    for each.
    """
    value = plan[VALUE]
    for start in range(0, len(order), minibatch):
        n = min(minibatch, len(order) - start)
        for b in range(n):
            for k in range(x.shape[1]):
                work[k, b] = x[order[start + b], k]
        forward(parameters, layers, 0, len(layers), work, n)
        clear(plan, gradient)
        actor_loss, critic_loss, bonus = 0.0, 0.0, entropy_coef / n
        for b in range(n):
            row = order[start + b]
            locate(parameters, plan, dims, box, given, work, b, loc, spread)
            now = score(plan, dims, box, work, plan[TOP], b, latents, row, loc, spread, direction)
            ratio = math.exp(now - log_prob[row])
            clipped = 1.0 - clip if ratio < 1.0 - clip else (1.0 + clip if ratio > 1.0 + clip else ratio)
            gain = float64(advantage[row])
            active = not ratio * gain > clipped * gain  # NaN goes through
            weigh(plan, b, direction, -gain * ratio / n if active else 0.0, slope, gradient)
            actor_loss -= (ratio * gain if active else clipped * gain) / n
            if bonus > 0.0:
                add_entropy(plan, work, b, -bonus, slope)
            error = work[value, b] - target[row]
            slope[value, b] = error / n
            critic_loss += 0.5 * error * error / n
        backward(parameters, layers, work, slope, gradient, n)
        adam(parameters, gradient, first, second, segments, rates, settings, taken, norms)
        sums[0] += actor_loss
        sums[1] += critic_loss
        sums[2] += norms[0]
        sums[3] += norms[1]
        sums[4] += 1.0
