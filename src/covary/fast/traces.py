"""One step of the online actor-critic with eligibility traces as a kernel. The formulas stand in
`covary.algorithms.actor_critic`."""

from __future__ import annotations

from numba import float32, float64, int64

from covary.fast.compiled import Matrix, Numbers, kernel
from covary.fast.descent import ADAM, move, norm_of
from covary.fast.running import DISCOUNT, LAM, VALID, observe, scale_rewards
from covary.fast.steps import POLICY, reach, weigh
from covary.fast.stepwise import (
    BAD_STEP,
    GAMMA,
    INFINITE,
    LEARNED,
    NORMALIZER,
    REFUSED,
    ROOM,
    SCALE_REWARDS,
    STEP,
    fade,
    judge,
    look,
    remember,
)
from covary.optim import LOOK_EVERY


@kernel(
    int64(
        *(*POLICY, *ADAM, Numbers),
        *(*NORMALIZER, *STEP, Numbers, Numbers, Numbers),
        *(*ROOM, Matrix, Numbers, Numbers, Numbers),
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
    traces,
    lams,
    deltas,
    sums,
):
    """As `covary.fast.online.learn`, of which it has the arguments and the answers. traces: (n, P), lams: of each
    segment; deltas: room for (n + 1,).

    Where it is REFUSED the traces are cut.
    """
    n, happened, actor_loss, critic_loss = len(obs), 0, 0.0, 0.0
    log_prob = deltas[n:]
    if look(steps, next_obs) != 0.0:
        return BAD_STEP
    if options[SCALE_REWARDS] > 0.0:
        scale_rewards(running, carry, steps, options[GAMMA], n)
    for b in range(n):
        if steps[VALID, b] > 0.0:
            happened += 1
            deltas[b] = judge(
                *(parameters, layers, plan, dims, box, given, mean, inv_std, clip),
                *(obs, latents, steps, next_obs, work, slope, loc, spread, direction, b, log_prob),
            )
            weigh(plan, 0, direction, 1.0, slope, gradient)
            remember(parameters, layers, plan, work, slope, gradient, traces[b])
            actor_loss -= deltas[b] * log_prob[0]
            critic_loss += 0.5 * deltas[b] * deltas[b]
    if happened == 0:
        return LEARNED
    gradient[:] = float32(0.0)
    for b in range(n):
        if steps[VALID, b] > 0.0:
            weight, trace = float32(-deltas[b] / happened), traces[b]
            for j in range(len(trace)):
                gradient[j] += weight * trace[j]
    actor_norm, critic_norm = norm_of(gradient, segments, 0), norm_of(gradient, segments, 1)
    total = 0.0 * (actor_loss + critic_loss + actor_norm + critic_norm)
    if taken[0] % LOOK_EVERY == 0.0:
        total += reach(parameters)
    if total != 0.0:
        traces[:] = float32(0.0)
        return REFUSED
    move(parameters, gradient, first, second, segments, rates, settings, 0, taken[0], actor_norm)
    move(parameters, gradient, first, second, segments, rates, settings, 1, taken[0], critic_norm)
    taken[0] += 1.0
    for b in range(n):
        if steps[VALID, b] > 0.0:
            fade(traces[b], segments, lams, float64(steps[DISCOUNT, b]) * float64(steps[LAM, b]))
    if clip < INFINITE:
        observe(obs, steps, n, count, mean64, m2, mean, inv_std)
    sums[0] += actor_loss / happened
    sums[1] += critic_loss / happened
    sums[2] += 1.0
    return LEARNED
