"""Running statistics of what happened, as kernels: of observations and of returns.

The formulas stand in `covary.nets.RunningNorm` and `covary.returns.ReturnScale`; everything is changed in place.
"""

from __future__ import annotations

import math

from numba import float64, int64, void

from covary.fast.compiled import Matrix, Numbers, Vector, kernel, part

REWARD, DISCOUNT, LAM, VALID, SCALED = range(5)  # rows of a table of steps
NORMALIZER = (Numbers, Numbers, Numbers, Vector, Vector)  # count, mean64, m2, mean, inv_std


@part(void(Matrix, Matrix, int64, *NORMALIZER))
def observe(obs, steps, n, count, mean64, m2, mean, inv_std):
    """`covary.nets.RunningNorm.update` with the rows of obs that happened."""
    seen = 0.0
    for b in range(n):
        seen += steps[VALID, b]
    if seen == 0.0:
        return
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


@part(void(Numbers, Matrix))
def scaled(running, steps):
    """The rewards over the deviation of the returns, within +-10, from the row REWARD to the row SCALED."""
    std = math.sqrt(running[2] / running[0]) if running[0] > 1.0 else 0.0
    scale = 1.0 / std if std > 1e-8 else 1.0
    for i in range(steps.shape[1]):
        r = steps[REWARD, i] * scale
        steps[SCALED, i] = -10.0 if r < -10.0 else (10.0 if r > 10.0 else r)


@part(void(Numbers, Numbers, Matrix, float64, int64))
def scale_rewards(running, carry, steps, gamma, n):
    """`covary.returns.ReturnScale` over T steps of n environments, from the row REWARD to the row SCALED. running:
    count, mean and m2 of the returns."""
    for i in range(steps.shape[1]):
        b = i % n
        carry[b] = steps[REWARD, i] + gamma * carry[b]
        if steps[VALID, i] > 0.0:
            running[0] += 1.0
            delta = carry[b] - running[1]
            running[1] += delta / running[0]
            running[2] += delta * (carry[b] - running[1])
        carry[b] *= steps[LAM, i]
    scaled(running, steps)


@kernel(void(Matrix, Matrix, int64, float64, Numbers, Numbers, *NORMALIZER))
def show(obs, steps, n, gamma, running, carry, count, mean64, m2, mean, inv_std):
    """What a rollout of n environments shows: its observations (B, O) to the normaliser, its rewards to their scale,
    unless gamma is negative. steps: (5, B)."""
    observe(obs, steps, len(obs), count, mean64, m2, mean, inv_std)
    if gamma >= 0.0:
        scale_rewards(running, carry, steps, gamma, n)
