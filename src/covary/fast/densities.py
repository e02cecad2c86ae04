"""Actions drawn and scored by hand: log-probabilities with their slope in everything that the policy's head learns.

What is computed stands in `covary.distributions.joint` and `scalar`; here it is written for one sample at a time, in
float64, with its derivatives. Slopes come in the order in which `covary.heads.GaussianHead` has its outputs: D for loc,
one more for each angle, D log standard deviations, the couplings. The slope of the geometry's own Jacobian is left out
everywhere: it depends on the latent alone, so it cancels in a ratio and has no gradient.

A Gaussian head is described by

    plan  (12,)    D, number of angles, couplings, whether the spread depends on the state, whether it is learned, where
                   log_std and the couplings begin in the vector of parameters, whether the factor is given, choices K;
                   how many layers are the policy's, the row where its outputs begin, and that of the value
    dims  (D, 5)   kind, whether the mean is kept inside, which angle it is, its place in the factor's order, and the
                   dimension that has this place
    box   (D, 7)   low, high, the largest float32 below high, offset, gain, the log standard deviation of the start,
                   1 where a half-bounded dimension opens upwards or -1
    given (D, D)   a factor that is fixed

and the choices of a Categorical by `plan` alone, with D = 0.
"""

from __future__ import annotations

import math

from numba import float64, int64, types, void

from covary.fast.compiled import Indices, Matrix, Numbers, Rows, Table, Vector, part

FREE, SQUASH, HALF, WRAP, CLIP = range(5)
D, ANGLES, COUPLINGS, PER_STATE, LEARNED, LOG_STD, COUPLING, GIVEN, CHOICES, DEPTH, TOP, VALUE = range(12)
KIND, KEPT, ANGLE, PLACE, AT_PLACE = range(5)
LOW, HIGH, OPEN_HIGH, OFFSET, GAIN, BASE, SIGN = range(7)

_HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)
TWO_PI = 2 * math.pi
_BELOW_TWO_PI = 6.283185243606567  # from here on float32 rounds up to 2 pi
_ROOT_HALF = math.sqrt(0.5)


@part(types.Tuple((float64, float64, float64))(int64, float64, float64, float64, float64, float64))
def _score_one(kind, x, m, s, low, high):
    """log p(x; m, s) of one dimension, and its slopes by m and by log s."""
    r = x - m
    if kind == WRAP:
        r -= TWO_PI * math.floor((r + math.pi) / TWO_PI)
        if s < 1.5:  # five images
            most = -0.5 * (r / s) ** 2
            total, first, second = 0.0, 0.0, 0.0
            for k in range(-2, 3):
                t = (r + TWO_PI * k) / s
                weight = math.exp(-0.5 * t * t - most)
                total += weight
                first += weight * t
                second += weight * t * t
            return math.log(total) + most - math.log(s) - _HALF_LOG_TWO_PI, first / total / s, second / total - 1.0
        total, first, second = 1.0, 0.0, 0.0
        for k in range(1, 7):  # the Fourier series
            weight = 2.0 * math.exp(-0.5 * (k * s) ** 2)
            total += weight * math.cos(k * r)
            first += weight * k * math.sin(k * r)
            second -= weight * (k * s) ** 2 * math.cos(k * r)
        return math.log(total) - math.log(TWO_PI), first / total, second / total
    if kind == CLIP and (x <= low or x >= high):
        sign = 1.0 if x <= low else -1.0
        z = (low - m) / s if x <= low else (m - high) / s
        if z > -30.0:
            mass = math.log1p(-0.5 * math.erfc(z * _ROOT_HALF)) if z > 0 else math.log(0.5 * math.erfc(-z * _ROOT_HALF))
        else:
            mass = -0.5 * z * z - math.log(-z) - _HALF_LOG_TWO_PI - 1 / (z * z)
        hazard = math.exp(-0.5 * z * z - _HALF_LOG_TWO_PI - mass)
        return mass, -sign * hazard / s, -z * hazard
    z = r / s
    return -0.5 * z * z - math.log(s) - _HALF_LOG_TWO_PI, z / s, z * z - 1.0


@part(void(Vector, Indices, Rows, Table, Table, Matrix, int64, int64, Table))
def spread_of(parameters, plan, dims, box, given, outputs, at, b, spread):
    """The latent's Cholesky factor for column b, in D rows of `spread`; below, by place, the norm that each row was
    divided by, and by dimension whether its log standard deviation may still move."""
    d = plan[D]
    start = at + d + plan[ANGLES]
    for i in range(d):
        row = dims[i, PLACE]
        log_std = 0.0
        if plan[LEARNED]:
            log_std = float64(outputs[start + i, b]) if plan[PER_STATE] else float64(parameters[plan[LOG_STD] + i])
        spread[d + 1, i] = 1.0 if -9.0 <= log_std <= 6.0 else 0.0
        std = math.exp(box[i, BASE] + (-9.0 if log_std < -9.0 else (6.0 if log_std > 6.0 else log_std)))
        square = 1.0
        for j in range(row):
            c = 0.0
            if plan[COUPLINGS]:
                k = row * (row - 1) // 2 + j
                c = float64(outputs[start + d + k, b]) if plan[PER_STATE] else float64(parameters[plan[COUPLING] + k])
            spread[row, j] = c
            square += c * c
        spread[d, row] = math.sqrt(square)
        spread[row, row] = 1.0
        for j in range(row + 1):
            spread[row, j] = given[row, j] if plan[GIVEN] else spread[row, j] * std / spread[d, row]


@part(void(Indices, Rows, Table, Matrix, int64, int64, Table))
def centre_of(plan, dims, box, outputs, at, b, loc):
    """loc for column b; below it, its slope by the first output of each dimension and by the second of an angle."""
    for i in range(plan[D]):
        out = float64(outputs[at + i, b])
        if dims[i, KIND] == WRAP:
            second = float64(outputs[at + plan[D] + dims[i, ANGLE], b])
            short = out * out + second * second < 1e-6  # a vector shorter than 1e-3 counts as one of that length
            out = -1e-3 if short else out
            square = out * out + second * second
            loc[0, i] = math.atan2(second, out)
            loc[1, i] = 0.0 if short else -second / square
            loc[2, i] = out / square
        elif dims[i, KEPT]:
            share = 1.0 / (1.0 + math.exp(-out))
            loc[0, i] = box[i, OFFSET] + 2.0 * box[i, GAIN] * (share - 0.5)
            loc[1, i] = 2.0 * box[i, GAIN] * share * (1.0 - share)
        else:
            loc[0, i] = box[i, OFFSET] + box[i, GAIN] * out
            loc[1, i] = box[i, GAIN]


@part(float64(Indices, Rows, Table, Matrix, int64, int64, Matrix, int64, Table, Table, Numbers))
def score(plan, dims, box, outputs, at, b, latents, sample, loc, spread, slope):
    """log p of a latent, up to the geometry's Jacobian, given `loc` and `spread` of its column; and its slope.

    With r the residual of a row given those before it, p(row) has mean m = loc + sum_j L_j eps_j and scale L_ii. What
    each row's own law says by its mean and by its log scale is carried back to what stands before it.
    """
    if plan[CHOICES]:
        most = outputs[at, b]
        for k in range(1, plan[CHOICES]):
            most = max(most, outputs[at + k, b])
        total = 0.0
        for k in range(plan[CHOICES]):
            slope[k] = math.exp(float64(outputs[at + k, b] - most))
            total += slope[k]
        for k in range(plan[CHOICES]):
            slope[k] /= -total
        chosen = int64(latents[sample, 0])
        slope[chosen] += 1.0
        return float64(outputs[at + chosen, b] - most) - math.log(total)
    d = plan[D]
    coupled = plan[COUPLINGS] > 0 or plan[GIVEN] > 0
    start = d + plan[ANGLES]
    total = 0.0
    for row in range(d):
        i = dims[row, AT_PLACE]
        mean, scale = loc[0, i], spread[row, row]
        if coupled:
            for j in range(row):
                mean += spread[row, j] * loc[3, j]
        x = float64(latents[sample, i])
        value, by_mean, by_scale = _score_one(dims[i, KIND], x, mean, scale, box[i, LOW], box[i, HIGH])
        total += value
        loc[3, row], loc[4, row], loc[5, row], loc[6, row] = (x - mean) / scale, by_mean, by_scale, mean - loc[0, i]
    for back in range(d):
        row = d - 1 - back
        i = dims[row, AT_PLACE]
        by_mean, by_scale = loc[4, row], loc[5, row]
        if coupled:
            later = 0.0
            for k in range(row + 1, d):
                later += loc[4, k] * spread[k, row]
            by_mean -= later / spread[row, row]
            by_scale -= later * loc[3, row]
            loc[4, row] = by_mean
        slope[i] = by_mean * loc[1, i]
        if dims[i, KIND] == WRAP:
            slope[d + dims[i, ANGLE]] = by_mean * loc[2, i]
        by_std = by_mean * loc[6, row] + by_scale
        slope[start + i] = by_std * spread[d + 1, i]
        if plan[COUPLINGS]:
            norm = spread[d, row]
            std = spread[row, row] * norm
            for j in range(row):
                share = spread[row, j] / std
                slope[start + d + row * (row - 1) // 2 + j] = (std * by_mean * loc[3, j] - share * by_std) / norm
    return total


@part(void(Indices, Rows, Table, Matrix, int64, int64, Matrix, int64, Table, Table, Matrix, Matrix))
def draw(plan, dims, box, outputs, at, b, noise, sample, loc, spread, latents, actions):
    """The latent and the action that `noise` makes of column b; the action inside the box, as it is executed."""
    if plan[CHOICES]:
        most, total = outputs[at, b], 0.0
        for k in range(1, plan[CHOICES]):
            most = max(most, outputs[at + k, b])
        for k in range(plan[CHOICES]):
            total += math.exp(float64(outputs[at + k, b] - most))
        reached, chosen = 0.0, 0
        for k in range(plan[CHOICES]):
            reached += math.exp(float64(outputs[at + k, b] - most))
            chosen += reached <= noise[sample, 0] * total
        latents[sample, 0] = actions[sample, 0] = chosen
        return
    for i in range(plan[D]):
        kind, row = dims[i, KIND], dims[i, PLACE]
        low, high = box[i, LOW], box[i, HIGH]
        u = loc[0, i]
        if plan[COUPLINGS] or plan[GIVEN]:
            for j in range(row + 1):
                u += spread[row, j] * noise[sample, j]
        else:
            u += spread[row, row] * noise[sample, i]
        if kind == WRAP:
            u -= TWO_PI * math.floor(u / TWO_PI)
            u = 0.0 if u >= _BELOW_TWO_PI else u
            a = low + u * (high - low) / TWO_PI
            high = box[i, OPEN_HIGH]
        elif kind == SQUASH:
            a = low + (high - low) / (1.0 + math.exp(-u))
        elif kind == HALF:
            a = (low if box[i, SIGN] > 0 else high) + box[i, SIGN] * (max(u, 0.0) + math.log1p(math.exp(-abs(u))))
        else:
            a = low if u < low else (high if u > high else u)
            u = a if kind == CLIP else u
        latents[sample, i] = u
        actions[sample, i] = low if a < low else (high if a > high else a)  # NaN goes through
