"""One step of Stream AC as a kernel. The formulas stand in `covary.algorithms.stream_ac`."""

from __future__ import annotations

import math

import numpy as np
from numba import float32, float64, int64, types

from covary.fast import densities
from covary.fast.compiled import Indices, Matrix, Numbers, Rows, Table, Vector, kernel, part
from covary.fast.densities import ANGLES, CHOICES, HALF, HIGH, KIND, LOW, PLACE, SQUASH, D
from covary.fast.running import DISCOUNT, LAM, VALID, observe, scale_rewards
from covary.fast.steps import POLICY, add_entropy, reach, weigh
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
    fade,
    judge,
    look,
    remember,
)
from covary.optim import LOOK_EVERY

MOVES = densities.LEARNED  # whether the spread is learned
_FAR, _STEP, _WIDE = 9.0, 0.5, 1.5
_NODES, _WEIGHTS = (20.0 * x for x in np.polynomial.legendre.leggauss(64) + np.array([[1.0], [0.0]]))  # over [0, 40]
_HALF_LOG_TWO_PI_E = 0.5 * math.log(2 * math.pi * math.e)


@part(types.Tuple((float64, float64, float64))(int64, float64, float64))
def expected_log_slope(kind, m, s):
    """E log |da/du| of one dimension but for the box's width, u ~ N(m, s^2), and its slopes by m and by log s.

    Up to s = 1.5 the trapezoid rule over +-9 deviations, whose error falls with exp(-2 pi^2 / (s h)) for a step of h
    deviations: the slope's poles lie at a distance of pi. Beyond, as in `covary.distributions.scalar`, that of
    -max(-u, 0) in closed form, and by 64 nodes what is left of it near 0. Below 1e-6.
    """
    value, by_mean, by_scale = 0.0, 0.0, 0.0
    if s > _WIDE:
        a = m / s
        peak, below = math.exp(-0.5 * a * a) / math.sqrt(2 * math.pi), 0.5 * math.erfc(a * math.sqrt(0.5))
        near, slope, bend = 0.0, 0.0, 0.0
        for k in range(len(_NODES)):
            x = _NODES[k]
            up = _WEIGHTS[k] * math.exp(-0.5 * ((x - m) / s) ** 2) / (s * math.sqrt(2 * math.pi))
            down = _WEIGHTS[k] * math.exp(-0.5 * ((x + m) / s) ** 2) / (s * math.sqrt(2 * math.pi))
            low = math.exp(-x)
            near += (up + down) * math.log1p(low)
            slope += (up - down) * low / (1.0 + low)
            bend += (up + down) * low / (1.0 + low) ** 2
        value = m * below - s * peak - near  # E log sigmoid(u)
        by_mean, by_scale = below + slope, -s * s * bend
        if kind == SQUASH:  # and log sigmoid(-u)
            value += value - m
            by_mean += by_mean - 1.0
            by_scale += by_scale
        return value, by_mean, by_scale
    for k in range(-int(_FAR / _STEP), int(_FAR / _STEP) + 1):
        eps = k * _STEP
        weight = _STEP * math.exp(-0.5 * eps * eps) / math.sqrt(2 * math.pi)
        u = m + s * eps
        low = math.exp(-abs(u))
        above = 1.0 / (1.0 + low) if u > 0.0 else low / (1.0 + low)  # sigmoid(u)
        value -= weight * (max(-u, 0.0) + math.log1p(low))  # log sigmoid(u)
        slope = 1.0 - above
        if kind == SQUASH:
            value -= weight * (max(u, 0.0) + math.log1p(low))
            slope -= above
        by_mean += weight * slope
        by_scale += weight * slope * s * eps
    return value, by_mean, by_scale


@part(float64(Indices, Rows, Table, Table, Table, float64, Numbers))
def add_gaussian_entropy(plan, dims, box, loc, spread, weight, direction):
    """The entropy of a diagonal Gaussian's action; its slope times weight is added to a score's."""
    total, start = 0.0, plan[D] + plan[ANGLES]
    for i in range(plan[D]):
        kind, row = dims[i, KIND], dims[i, PLACE]
        scale = spread[row, row]
        total += math.log(scale) + _HALF_LOG_TWO_PI_E
        by_scale = 1.0
        if kind in (SQUASH, HALF):
            value, by_mean, more = expected_log_slope(kind, loc[0, i], scale)
            by_scale += more
            total += value + (math.log(box[i, HIGH] - box[i, LOW]) if kind == SQUASH else 0.0)
            direction[i] += weight * by_mean * loc[1, i]
        if plan[MOVES]:
            direction[start + i] += weight * by_scale * spread[plan[D] + 1, i]
    return total


@part(float64(Vector))
def length_of(trace):
    """||z||_1"""
    total = float32(0.0)
    for j in range(len(trace)):
        total += abs(trace[j])
    return float64(total)


@kernel(
    int64(
        *(*POLICY, Vector, Indices, Numbers, Numbers),
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
    segments,
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
    told,
    sums,
):
    """As `covary.fast.traces.learn`, of one environment. settings: alpha and the kappas; told: room for two numbers."""
    if look(steps, next_obs) != 0.0:
        return BAD_STEP
    if options[SCALE_REWARDS] > 0.0:
        scale_rewards(running, carry, steps, options[GAMMA], 1)
    if steps[VALID, 0] == 0.0:
        return LEARNED
    delta = judge(
        *(parameters, layers, plan, dims, box, given, mean, inv_std, clip),
        *(obs, latents, steps, next_obs, work, slope, loc, spread, direction, 0, told),
    )
    trace, tau, entropy = traces[0], options[ENTROPY_COEF], 0.0
    bonus = tau if delta > 0.0 else (-tau if delta < 0.0 else 0.0)
    if tau > 0.0 and plan[CHOICES] == 0:
        entropy = add_gaussian_entropy(plan, dims, box, loc, spread, bonus, direction)
    weigh(plan, 0, direction, 1.0, slope, gradient)
    if tau > 0.0 and plan[CHOICES] > 0:
        entropy = add_entropy(plan, work, 0, bonus, slope)
    remember(parameters, layers, plan, work, slope, gradient, trace)
    actor_loss, critic_loss = -delta * told[0] - tau * abs(delta) * entropy, 0.5 * delta * delta
    actor, critic = trace[: segments[0]], trace[segments[0] :]
    actor_length, critic_length = length_of(actor), length_of(critic)
    total = 0.0 * (actor_loss + critic_loss + actor_length + critic_length)
    if taken[0] % LOOK_EVERY == 0.0:
        total += reach(parameters)
    if total != 0.0:
        traces[:] = float32(0.0)
        return REFUSED
    alpha, bound = settings[0], max(abs(delta), 1.0)
    rate = float32(alpha / max(1.0, alpha * settings[1] * bound * actor_length) * delta)
    for j in range(segments[0]):
        parameters[j] += rate * trace[j]
    rate = float32(alpha / max(1.0, alpha * settings[2] * bound * critic_length) * delta)
    for j in range(segments[0], len(trace)):
        parameters[j] += rate * trace[j]
    taken[0] += 1.0
    fade(trace, segments, lams, float64(steps[DISCOUNT, 0]) * float64(steps[LAM, 0]))
    if clip < INFINITE:
        observe(obs, steps, 1, count, mean64, m2, mean, inv_std)
    sums[0] += actor_loss
    sums[1] += critic_loss
    sums[2] += 1.0
    return LEARNED
