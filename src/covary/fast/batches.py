"""What a rollout becomes before it is learned from, as a kernel: for short ones, where each of PyTorch's operations
would cost as much as the network. The formulas stand in `covary.advantages`."""

from __future__ import annotations

from numba import float64, int64, void

from covary.fast.compiled import Indices, Matrix, Numbers, Table, Vector, kernel, part
from covary.fast.dense import forward
from covary.fast.densities import DEPTH, TOP, VALUE, score
from covary.fast.steps import DISCOUNT, LAM, POLICY, REWARD, SCALED, VALID, locate, normalize, observe, scaled

LOG_PROB, ADVANTAGE, TARGET, OLD_VALUE = range(4)  # rows of what `estimates` makes
GAMMA, LAMBDA, SCALE_REWARDS = range(3)


@part(void(Numbers, Numbers, Matrix, float64, int64))
def _scale_rewards(running, carry, steps, gamma, n):
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


@kernel(
    void(
        *(*POLICY, Vector, Vector, float64),
        *(Matrix, Matrix, Matrix, Matrix, int64, Numbers, Numbers, Numbers),
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
    options,
    running,
    carry,
    x,
    made,
    rows,
    work,
    loc,
    spread,
    direction,
):
    """`covary.advantages.estimate`, over T steps of n environments: B = T n, time-major. obs, next_obs: (B, O) raw;
    steps: (5, B); running, carry: of the scale of rewards. Fills x (B, O) and made (4, B); rows: (B,) to work in."""
    size, most, ends = len(obs), work.shape[1], 0
    gamma, lam = options[GAMMA], options[LAMBDA]
    if options[SCALE_REWARDS] > 0.0:
        _scale_rewards(running, carry, steps, gamma, n)
    else:
        for i in range(size):
            steps[SCALED, i] = steps[REWARD, i]
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
