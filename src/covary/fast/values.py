"""Networks that learn from the past, as kernels: a batch through them, and the way back to their parameters or to the
actions that they judge. Batches come in rows, (B, features), and stand in columns while layers read them.

K action values are one table of layers, `depth` for each: in `apart` each value has rows of `work` to itself, in `same`
all of them use the first one's, one after another, so that what lies between is near. See `covary.fast.dense`.
"""

from __future__ import annotations

from numba import float32, float64, int64, void

from covary.fast.compiled import Indices, Matrix, Rows, Vector, kernel, part
from covary.fast.dense import FILLS, OUTPUTS, back_to_inputs, backward, forward

_ONE, _ZERO = float32(1.0), float32(0.0)


@part(void(Matrix, int64, int64, Matrix, int64))
def stand(x, start, n, work, row):
    """Rows start to start + n of x as columns, from this row of work on."""
    for b in range(n):
        for k in range(x.shape[1]):
            work[row + k, b] = x[start + b, k]


@kernel(void(Vector, Rows, Matrix, Matrix, Matrix))
def give(parameters, layers, x, work, out):
    """What a network gives, (B, outputs), for x (B, inputs): as many at a time as `work` has columns."""
    last = len(layers) - 1
    fills, outputs, most = layers[last, FILLS], layers[last, OUTPUTS], work.shape[1]
    for start in range(0, len(x), most):
        n = min(most, len(x) - start)
        stand(x, start, n, work, 0)
        forward(parameters, layers, 0, len(layers), work, n)
        for b in range(n):
            for o in range(outputs):
                out[start + b, o] = work[fills + o, b]


@kernel(void(Vector, Rows, Matrix, Matrix, Matrix, Vector))
def learn(parameters, layers, to_out, work, slope, gradient):
    """From the loss's slope by what `give` gave for the batch that is still in `work`, (B, outputs), to its gradient,
    laid out as the parameters."""
    stand(to_out, 0, len(to_out), slope, layers[len(layers) - 1, FILLS])
    backward(parameters, layers, 0, len(layers), work, slope, gradient, len(to_out))


@kernel(void(Vector, Rows, int64, Matrix, Matrix, Matrix, Matrix))
def values(parameters, same, depth, x, action, work, out):
    """Of actions (B, A) after observations x (B, O); out: (K, B)."""
    most = work.shape[1]
    for start in range(0, len(x), most):
        n = min(most, len(x) - start)
        stand(x, start, n, work, 0)
        stand(action, start, n, work, x.shape[1])
        for k in range(len(out)):
            forward(parameters, same, k * depth, (k + 1) * depth, work, n)
            fills = same[(k + 1) * depth - 1, FILLS]
            for b in range(n):
                out[k, start + b] = work[fills, b]


@kernel(float64(Vector, Rows, int64, Matrix, Matrix, Vector, Vector, Matrix, Matrix, Vector, Vector))
def fit(parameters, same, depth, x, action, target, weight, work, slope, gradient, sizes):
    """The gradient of sum_k mean(weight (Q_k - target)^2) / 2, and that loss; sizes: (B,) the mean |Q_k - target|."""
    n, loss = len(x), 0.0
    stand(x, 0, n, work, 0)
    stand(action, 0, n, work, x.shape[1])
    sizes[:] = _ZERO
    for begin in range(0, len(same), depth):
        forward(parameters, same, begin, begin + depth, work, n)
        fills = same[begin + depth - 1, FILLS]
        for b in range(n):
            error = work[fills, b] - target[b]
            slope[fills, b] = error * weight[b] / float32(n)
            loss += 0.5 * slope[fills, b] * error
            sizes[b] += abs(error)
        backward(parameters, same, begin, begin + depth, work, slope, gradient, n)
    for b in range(n):
        sizes[b] /= float32(len(same) // depth)
    return loss


@kernel(void(Vector, Rows, Rows, int64, Matrix, Matrix, Matrix, Matrix, Matrix, Indices, Indices, Vector, Matrix))
def least(parameters, apart, same, depth, x, action, work, few, slope, which, columns, value, to_action):
    """The smallest of the values, (B,), and its slope by the action, (B, A): a column goes back through the one network
    whose value it is. which, columns: (B,) are room."""
    n, o = len(x), x.shape[1]
    stand(x, 0, n, work, 0)
    stand(action, 0, n, work, o)
    for begin in range(0, len(apart), depth):
        forward(parameters, apart, begin, begin + depth, work, n)
        fills = apart[begin + depth - 1, FILLS]
        for b in range(n):
            q = work[fills, b]
            if begin == 0 or q < value[b] or q != q:  # NaN is the smallest, as for torch
                value[b], which[b] = q, begin
    for begin in range(0, len(apart), depth):
        m = 0
        for b in range(n):
            if which[b] == begin:
                columns[m] = b
                m += 1
        if m == 0:
            continue
        fills, first, own = same[begin + depth - 1, FILLS], same[begin, FILLS], apart[begin, FILLS]
        for row in range(fills - first):
            for c in range(m):
                few[first + row, c] = work[own + row, columns[c]]
        for c in range(m):
            slope[fills, c] = _ONE
        back_to_inputs(parameters, same, begin, begin + depth, few, slope, m, o)
        for c in range(m):
            for k in range(action.shape[1]):
                to_action[columns[c], k] = slope[o + k, c]
