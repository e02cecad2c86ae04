"""One step of the online actor-critic as a kernel. The formulas stand in `covary.algorithms.actor_critic`."""

from __future__ import annotations

from numba import float64, int64

from covary.fast.compiled import Numbers, kernel
from covary.fast.dense import backward, forward
from covary.fast.densities import DEPTH, TOP, VALUE, score
from covary.fast.descent import ADAM, move, norm_of
from covary.fast.running import DISCOUNT, SCALED, VALID, observe, scale_rewards
from covary.fast.steps import POLICY, add_entropy, locate, normalize, reach, weigh
from covary.fast.stepwise import (
    BAD_STEP,
    ENTROPY_COEF,
    GAMMA,
    INFINITE,
    LEARNED,
    NORMALIZER,
    REFUSED,
    ROOM,
    SCALE_REWARDS,
    STEP,
    log_jacobian,
    look,
)
from covary.optim import LOOK_EVERY


@kernel(
    int64(
        *(*POLICY, *ADAM, Numbers),
        *(*NORMALIZER, *STEP, Numbers, Numbers, Numbers),
        *(*ROOM, Numbers),
    )
)
def learn(
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
    count,
    mean64,
    m2,
    mean,
    inv_std,
    clip,
    obs,
    latents,
    steps,
    next_obs,
    running,
    carry,
    options,
    work,
    slope,
    loc,
    spread,
    direction,
    sums,
):
    """One update of `covary.algorithms.actor_critic` from one step of n environments.

    obs, next_obs: (n, O) raw; steps: (5, n) reward, discount, lam, valid, and room for the scaled reward. options:
    gamma, entropy_coef, scale_rewards. running, carry: the reward scale's. sums: actor loss, critic loss and one are
    added to it.

    BAD_STEP, and nothing is changed, where a reward or an observation is not finite. REFUSED where a loss, the norm of
    a gradient or a parameter is not: neither network was moved; the reward scale has seen the reward.
    """
    n, happened, value = len(obs), 0, plan[VALUE]
    if look(steps, next_obs) != 0.0:
        return BAD_STEP
    if options[SCALE_REWARDS] > 0.0:
        scale_rewards(running, carry, steps, options[GAMMA], n)
    for time in range(1, -1, -1):  # V(s') first, then everything at s
        happened = 0
        for b in range(n):
            if steps[VALID, b] > 0.0:
                normalize(next_obs if time else obs, b, mean, inv_std, clip, work, happened)
                happened += 1
        forward(parameters, layers, plan[DEPTH] if time else 0, len(layers), work, happened)
        if time:
            for column in range(happened):
                slope[value, column] = work[value, column]
    if happened == 0:
        return LEARNED
    column, actor_loss, critic_loss, bonus = 0, 0.0, 0.0, options[ENTROPY_COEF] / happened
    for b in range(n):
        if steps[VALID, b] > 0.0:
            delta = steps[SCALED, b] + steps[DISCOUNT, b] * slope[value, column] - work[value, column]
            slope[value, column] = -delta / happened
            locate(parameters, plan, dims, box, given, work, column, loc, spread)
            log_prob = score(plan, dims, box, work, plan[TOP], column, latents, b, loc, spread, direction)
            log_prob -= log_jacobian(plan, dims, box, latents, b)
            weigh(plan, column, direction, -float64(delta) / happened, slope, gradient)
            actor_loss -= delta * log_prob / happened
            critic_loss += 0.5 * delta * delta / happened
            if bonus > 0.0:
                actor_loss -= bonus * add_entropy(plan, work, column, -bonus, slope)
            column += 1
    backward(parameters, layers, 0, len(layers), work, slope, gradient, happened)
    actor_norm, critic_norm = norm_of(gradient, segments, 0), norm_of(gradient, segments, 1)
    total = actor_loss + critic_loss + actor_norm + critic_norm
    total *= 0.0
    if taken[0] % LOOK_EVERY == 0.0:
        total += reach(parameters)
    if total != 0.0:
        return REFUSED
    move(parameters, gradient, first, second, segments, rates, settings, 0, taken[0], actor_norm)
    move(parameters, gradient, first, second, segments, rates, settings, 1, taken[0], critic_norm)
    taken[0] += 1.0
    if clip < INFINITE:
        observe(obs, steps, n, count, mean64, m2, mean, inv_std)
    sums[0] += actor_loss
    sums[1] += critic_loss
    sums[2] += 1.0
    return LEARNED
