"""Whole steps of learning as kernels: Adam, one step of the online actor-critic, one epoch of PPO.

The formulas stand in `covary.optim`, `covary.algorithms` and `covary.nets`; everything is changed in place, in the
memory of the modules' own parameters and buffers.
"""

from __future__ import annotations

import math

from numba import boolean, float32, float64, int64, void

from covary.fast.compiled import Indices, Matrix, Numbers, Rows, Table, Vector, kernel, part
from covary.fast.dense import backward, forward
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
    VALUE,
    D,
    centre_of,
    draw,
    log_jacobian,
    score,
    spread_of,
)

REWARD, DISCOUNT, LAM, VALID, SCALED = range(5)
GAMMA, ENTROPY_COEF, SCALE_REWARDS = range(3)
INFINITE = math.inf

_ONE = float32(1.0)
_POLICY = (Vector, Rows, Indices, Rows, Table, Table)  # parameters, layers, plan, dims, box, given
_ADAM = (Vector, Vector, Vector, Indices, Numbers, Numbers, Numbers, Numbers)  # `adam`'s but the parameters


@part(void(Vector, *_ADAM))
def adam(parameters, gradient, first, second, segments, rates, settings, taken, norms):
    """One step of `covary.optim.Adam`, counted in `taken`. settings: max_norm, share of the rate, beta1, beta2, eps.
    norms: each segment's, before it is clipped."""
    max_norm, share, beta1, beta2 = settings[0], settings[1], settings[2], settings[3]
    taken[0] += 1.0
    from_first, from_second = float32(1.0 - beta1), float32(1.0 - beta2)
    keep_second, eps = float32(beta2), float32(settings[4])
    root = float32(1.0 - beta2 ** taken[0])
    begin = 0
    for k in range(len(segments)):
        end = begin + segments[k]
        grad, p = gradient[begin:end], parameters[begin:end]  # indices from 0 are known not to be negative
        m, v = first[begin:end], second[begin:end]
        square = float32(0.0)
        for j in range(len(grad)):
            square += grad[j] * grad[j]
        norms[k] = math.sqrt(float64(square))
        factor = float32(min(max_norm / (norms[k] + 1e-6), 1.0)) if max_norm > 0.0 else _ONE
        rate = float32(rates[k] * share / (1.0 - beta1 ** taken[0]))
        for j in range(len(grad)):
            g = grad[j] * factor
            m_t = m[j] + (g - m[j]) * from_first
            v_t = v[j] * keep_second + from_second * (g * g)
            m[j] = m_t
            v[j] = v_t
            p[j] -= rate * m_t / (math.sqrt(v_t / root) + eps)
        begin = end


@part(void(*_POLICY[:1], *_POLICY[2:], Matrix, int64, Table, Table))
def _density(parameters, plan, dims, box, given, outputs, b, loc, spread):
    """What `score` and `draw` need of column b; a covariance that does not depend on the state is made for the first
    column and then kept."""
    centre_of(plan, dims, box, outputs, plan[TOP], b, loc)
    if b == 0 or plan[PER_STATE]:
        spread_of(parameters, plan, dims, box, given, outputs, plan[TOP], b, spread)


@part(void(Indices, int64, Numbers, float64, Matrix, Vector))
def _weigh(plan, b, slope, weight, out, gradient):
    """Hands weight times the slope of a score to the outputs of column b and, where the covariance has parameters of
    its own, to their gradient."""
    outputs = plan[CHOICES] if plan[CHOICES] else plan[D] + plan[ANGLES]
    more = plan[D] + plan[COUPLINGS] if plan[LEARNED] else 0
    for k in range(outputs + (more if plan[PER_STATE] else 0)):
        out[plan[TOP] + k, b] = float32(weight * slope[k])
    if plan[LEARNED] and not plan[PER_STATE]:
        for k in range(plan[D]):
            gradient[plan[LOG_STD] + k] += float32(weight * slope[outputs + k])
        for k in range(plan[COUPLINGS]):
            gradient[plan[COUPLING] + k] += float32(weight * slope[outputs + plan[D] + k])


@part(void(Indices, Vector))
def _clear(plan, gradient):
    """The only gradients that are added to."""
    if plan[LEARNED] and not plan[PER_STATE]:
        for k in range(plan[D]):
            gradient[plan[LOG_STD] + k] = 0.0
        for k in range(plan[COUPLINGS]):
            gradient[plan[COUPLING] + k] = 0.0


@part(float64(Indices, Matrix, int64, float64, Matrix))
def _entropy(plan, outputs, b, weight, out):
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
def _normalize(obs, row, mean, inv_std, clip, work, column):
    """Row of obs -> column of the network's inputs, standardised."""
    bound = float32(clip)
    for k in range(obs.shape[1]):
        x = (obs[row, k] - mean[k]) * inv_std[k]
        work[k, column] = -bound if x < -bound else (bound if x > bound else x)


@kernel(void(*_POLICY, Vector, Vector, float64, Matrix, Matrix, Matrix, Matrix, Matrix, Table, Table))
def act(
    parameters, layers, plan, dims, box, given, mean, inv_std, clip, obs, noise, latents, actions, work, loc, spread
):
    """Fills latents and actions, a row for each of obs, from the rows of noise."""
    n = len(obs)
    for b in range(n):
        _normalize(obs, b, mean, inv_std, clip, work, b)
    forward(parameters, layers, 0, plan[DEPTH], work, n)
    for b in range(n):
        _density(parameters, plan, dims, box, given, work, b, loc, spread)
        draw(plan, dims, box, work, plan[TOP], b, noise, b, loc, spread, latents, actions)


@kernel(void(*_POLICY, Matrix, Matrix, Matrix, Vector, Table, Table, Numbers))
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
            _density(parameters, plan, dims, box, given, work, b, loc, spread)
            out[start + b] = score(plan, dims, box, work, plan[TOP], b, latents, start + b, loc, spread, slope)


@part(void(Numbers, Numbers, Matrix, float64, int64))
def _scale_rewards(running, carry, steps, gamma, n):
    """`covary.returns.ReturnScale` over one step, from the row REWARD to the row SCALED. running: count, mean and m2 of
    the returns."""
    seen, mean = 0, 0.0
    for b in range(n):
        carry[b] = float64(steps[REWARD, b]) + gamma * carry[b]
        if steps[VALID, b] > 0.0:
            seen += 1
            mean += carry[b]
    mean /= max(seen, 1)
    squares = 0.0
    for b in range(n):
        if steps[VALID, b] > 0.0:
            squares += (carry[b] - mean) ** 2
        carry[b] *= steps[LAM, b]
    if seen > 0:
        count, delta = running[0] + seen, mean - running[1]
        running[2] += squares + delta * delta * running[0] * seen / count
        running[1] += delta * seen / count
        running[0] = count
    std = math.sqrt(running[2] / running[0]) if running[0] > 1.0 else 0.0
    scale = 1.0 / std if std > 1e-8 else 1.0
    for b in range(n):
        r = steps[REWARD, b] * scale
        steps[SCALED, b] = -10.0 if r < -10.0 else (10.0 if r > 10.0 else r)


@part(void(Matrix, Matrix, int64, Numbers, Numbers, Numbers, Vector, Vector))
def _observe(obs, steps, n, count, mean64, m2, mean, inv_std):
    """`covary.nets.RunningNorm.update` with the rows of obs that happened."""
    seen = 0.0
    for b in range(n):
        seen += steps[VALID, b]
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


@kernel(
    boolean(
        *(*_POLICY, *_ADAM),
        *(Numbers, Numbers, Numbers, Vector, Vector, float64),
        *(Matrix, Matrix, Matrix, Matrix, Numbers, Numbers, Numbers),
        *(Matrix, Matrix, Table, Table, Numbers, Numbers),
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
    norms,
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
    added to it. False, and nothing is changed, where a reward or an observation is not finite.
    """
    n, happened, value, total = len(obs), 0, plan[VALUE], 0.0
    for b in range(n):
        total += 0.0 * steps[REWARD, b]
        for k in range(next_obs.shape[1]):
            total += 0.0 * next_obs[b, k]
        steps[SCALED, b] = steps[REWARD, b]
    if total != 0.0:
        return False
    if options[SCALE_REWARDS] > 0.0:
        _scale_rewards(running, carry, steps, options[GAMMA], n)
    for time in range(1, -1, -1):  # V(s') first, then everything at s
        happened = 0
        for b in range(n):
            if steps[VALID, b] > 0.0:
                _normalize(next_obs if time else obs, b, mean, inv_std, clip, work, happened)
                happened += 1
        forward(parameters, layers, plan[DEPTH] if time else 0, len(layers), work, happened)
        if time:
            for column in range(happened):
                slope[value, column] = work[value, column]
    if happened == 0:
        return True
    _clear(plan, gradient)
    column, actor_loss, critic_loss, bonus = 0, 0.0, 0.0, options[ENTROPY_COEF] / happened
    for b in range(n):
        if steps[VALID, b] > 0.0:
            delta = steps[SCALED, b] + steps[DISCOUNT, b] * slope[value, column] - work[value, column]
            slope[value, column] = -delta / happened
            _density(parameters, plan, dims, box, given, work, column, loc, spread)
            log_prob = score(plan, dims, box, work, plan[TOP], column, latents, b, loc, spread, direction)
            log_prob -= log_jacobian(plan, dims, box, latents, b)
            _weigh(plan, column, direction, -float64(delta) / happened, slope, gradient)
            actor_loss -= delta * log_prob / happened
            critic_loss += 0.5 * delta * delta / happened
            if bonus > 0.0:
                actor_loss -= bonus * _entropy(plan, work, column, -bonus, slope)
            column += 1
    backward(parameters, layers, work, slope, gradient, happened)
    adam(parameters, gradient, first, second, segments, rates, settings, taken, norms)
    if clip < INFINITE:
        _observe(obs, steps, n, count, mean64, m2, mean, inv_std)
    sums[0] += actor_loss
    sums[1] += critic_loss
    sums[2] += 1.0
    return True


@kernel(
    void(
        *(*_POLICY, *_ADAM),
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
        _clear(plan, gradient)
        actor_loss, critic_loss, bonus = 0.0, 0.0, entropy_coef / n
        for b in range(n):
            row = order[start + b]
            _density(parameters, plan, dims, box, given, work, b, loc, spread)
            now = score(plan, dims, box, work, plan[TOP], b, latents, row, loc, spread, direction)
            ratio = math.exp(now - log_prob[row])
            clipped = 1.0 - clip if ratio < 1.0 - clip else (1.0 + clip if ratio > 1.0 + clip else ratio)
            gain = float64(advantage[row])
            active = not ratio * gain > clipped * gain  # NaN goes through
            _weigh(plan, b, direction, -gain * ratio / n if active else 0.0, slope, gradient)
            actor_loss -= (ratio * gain if active else clipped * gain) / n
            if bonus > 0.0:
                _entropy(plan, work, b, -bonus, slope)
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
