"""Layers of a multilayer perceptron, forwards and backwards, as kernels.

A batch stands in columns, (features, B): the innermost loop of every product runs over the batch, and four rows by four
are taken at once, so that a number that was loaded is used four times: half to all of the speed of a BLAS on layers of
this size, without the cost of calling one.

Networks are a table with a row for each layer: where its weight (outputs, inputs) and its bias (-1 for none) begin in
the vector of all parameters, its inputs, its outputs, its activation, the rows of `work` that it reads and fills, and
whether it is so large that a BLAS makes its products.
A row without a weight (-1) standardises what it reads, column by column, as torch's LayerNorm does that learns nothing.
`work` holds the inputs of all networks and then what each layer gives, `slope` the loss's derivatives by them.
"""

from __future__ import annotations

import math

from numba import float32, float64, int64, void

from covary.fast.blas import sgemm
from covary.fast.compiled import Matrix, Rows, Vector, part

WEIGHT, BIAS, INPUTS, OUTPUTS, ACTIVATION, READS, FILLS, LARGE = range(8)
IDENTITY, TANH, RELU, ELU, LEAKY = range(5)
LEAK = float32(0.01)  # slope of a leaky ReLU below 0
NORM_EPS = 1e-5  # what LayerNorm adds to a variance

# tanh(x) = x P(x^2) / Q(x^2), relative error 2e-8 (3.2e-7 in float32) up to 9.1, where float32 rounds to 1: a rational
# least-squares fit with weights adapted until its errors were level (Lawson 1961).
_FAR = float32(9.1)
_P0, _P1, _P2 = float32(0.9999999773946424), float32(0.13374472998518286), float32(0.0034878061454077756)
_P3, _P4 = float32(2.0481021640733994e-05), float32(1.317715159689177e-08)
_Q1, _Q2, _Q3 = float32(0.46707786871552537), float32(0.02584737581861785), float32(0.00032729084142559125)
_Q4, _ONE, _ZERO = float32(7.703923568698051e-07), float32(1.0), float32(0.0)
_N, _T = ord("N"), ord("T")


@part(void(Vector, int64, int64, Matrix, Matrix, int64))
def add_product(a, row, column, x, y, n):
    """y += A x over n columns, where A[o, i] = a[o * row + i * column]: a weight, or its transpose."""
    outputs, inputs = y.shape[0], x.shape[0]
    whole, even = outputs - outputs % 4, inputs - inputs % 4
    for o in range(0, whole, 4):
        for i in range(0, even, 4):
            at = o * row + i * column
            a00, a01, a02, a03 = a[at], a[at + column], a[at + 2 * column], a[at + 3 * column]
            at += row
            a10, a11, a12, a13 = a[at], a[at + column], a[at + 2 * column], a[at + 3 * column]
            at += row
            a20, a21, a22, a23 = a[at], a[at + column], a[at + 2 * column], a[at + 3 * column]
            at += row
            a30, a31, a32, a33 = a[at], a[at + column], a[at + 2 * column], a[at + 3 * column]
            for b in range(n):
                x0, x1, x2, x3 = x[i, b], x[i + 1, b], x[i + 2, b], x[i + 3, b]
                y[o, b] += a00 * x0 + a01 * x1 + a02 * x2 + a03 * x3
                y[o + 1, b] += a10 * x0 + a11 * x1 + a12 * x2 + a13 * x3
                y[o + 2, b] += a20 * x0 + a21 * x1 + a22 * x2 + a23 * x3
                y[o + 3, b] += a30 * x0 + a31 * x1 + a32 * x2 + a33 * x3
    for o in range(outputs):  # what four by four left over
        for i in range(even if o < whole else 0, inputs):
            factor = a[o * row + i * column]
            for b in range(n):
                y[o, b] += factor * x[i, b]


@part(void(Matrix, Matrix, Vector, int64))
def outer_products(y, x, out, n):
    """out[o, i] = sum over n columns of y[o] x[i]; out is flat, (outputs * inputs,)."""
    outputs, inputs = y.shape[0], x.shape[0]
    whole, even = outputs - outputs % 4, inputs - inputs % 4
    for o in range(0, whole, 4):
        for i in range(0, even, 4):
            s00 = s01 = s02 = s03 = s10 = s11 = s12 = s13 = _ZERO
            s20 = s21 = s22 = s23 = s30 = s31 = s32 = s33 = _ZERO
            for b in range(n):
                x0, x1, x2, x3 = x[i, b], x[i + 1, b], x[i + 2, b], x[i + 3, b]
                y0, y1, y2, y3 = y[o, b], y[o + 1, b], y[o + 2, b], y[o + 3, b]
                s00, s01, s02, s03 = s00 + y0 * x0, s01 + y0 * x1, s02 + y0 * x2, s03 + y0 * x3
                s10, s11, s12, s13 = s10 + y1 * x0, s11 + y1 * x1, s12 + y1 * x2, s13 + y1 * x3
                s20, s21, s22, s23 = s20 + y2 * x0, s21 + y2 * x1, s22 + y2 * x2, s23 + y2 * x3
                s30, s31, s32, s33 = s30 + y3 * x0, s31 + y3 * x1, s32 + y3 * x2, s33 + y3 * x3
            at = o * inputs + i
            out[at], out[at + 1], out[at + 2], out[at + 3] = s00, s01, s02, s03
            at += inputs
            out[at], out[at + 1], out[at + 2], out[at + 3] = s10, s11, s12, s13
            at += inputs
            out[at], out[at + 1], out[at + 2], out[at + 3] = s20, s21, s22, s23
            at += inputs
            out[at], out[at + 1], out[at + 2], out[at + 3] = s30, s31, s32, s33
    for o in range(outputs):
        for i in range(even if o < whole else 0, inputs):
            total = _ZERO
            for b in range(n):
                total += y[o, b] * x[i, b]
            out[o * inputs + i] = total


@part(void(Vector, int64, int64, Matrix, Matrix, int64))
def add_large_product(a, row, column, x, y, n):
    """`add_product` by a BLAS, of which every matrix here is the transpose."""
    outputs, inputs, trans = y.shape[0], x.shape[0], _N if column == 1 else _T
    at, to = x.ctypes.data, y.ctypes.data
    sgemm(_N, trans, n, outputs, inputs, at, x.shape[1], a.ctypes.data, max(row, column), _ONE, to, y.shape[1])


@part(void(Matrix, Matrix, Vector, int64))
def large_outer_products(y, x, out, n):
    """`outer_products` by a BLAS."""
    outputs, inputs = y.shape[0], x.shape[0]
    at, to = x.ctypes.data, y.ctypes.data
    sgemm(_T, _N, inputs, outputs, n, at, x.shape[1], to, y.shape[1], _ZERO, out.ctypes.data, inputs)


@part(void(int64, Matrix, int64))
def activate(activation, y, n):
    """In place, over n columns."""
    for o in range(y.shape[0]):
        if activation == TANH:
            for b in range(n):  # comparisons that NaN fails, so that it goes through
                z = y[o, b]
                z = -_FAR if z < -_FAR else (_FAR if z > _FAR else z)
                s = z * z
                p = _P0 + s * (_P1 + s * (_P2 + s * (_P3 + s * _P4)))
                z *= p / (_ONE + s * (_Q1 + s * (_Q2 + s * (_Q3 + s * _Q4))))
                y[o, b] = -_ONE if z < -_ONE else (_ONE if z > _ONE else z)
        elif activation == RELU:
            for b in range(n):
                y[o, b] = _ZERO if y[o, b] < _ZERO else y[o, b]
        elif activation == LEAKY:
            for b in range(n):
                y[o, b] = LEAK * y[o, b] if y[o, b] < _ZERO else y[o, b]
        else:
            for b in range(n):
                y[o, b] = float32(math.expm1(y[o, b])) if y[o, b] < _ZERO else y[o, b]


@part(void(int64, Matrix, Matrix, int64))
def deactivate(activation, y, dy, n):
    """From the slope by what an activation gave to that by what it was given, in place; it follows from what it gave:
    1 - y^2, y > 0, min(y, 0) + 1, the leak where y < 0."""
    for o in range(len(y)):
        if activation == TANH:
            for b in range(n):
                dy[o, b] *= _ONE - y[o, b] * y[o, b]
        elif activation == RELU:
            for b in range(n):
                dy[o, b] = _ZERO if y[o, b] <= _ZERO else dy[o, b]
        elif activation == ELU:
            for b in range(n):
                dy[o, b] *= _ONE if y[o, b] > _ZERO else y[o, b] + _ONE
        elif activation == LEAKY:
            for b in range(n):
                dy[o, b] *= _ONE if y[o, b] > _ZERO else LEAK


@part(float64(Matrix, int64))
def mean_of(x, b):
    """Of column b."""
    total = 0.0
    for i in range(len(x)):
        total += float64(x[i, b])
    return total / len(x)


@part(float64(Matrix, int64, float64))
def inverse_std(x, b, mean):
    """Of column b, as LayerNorm takes it."""
    total = 0.0
    for i in range(len(x)):
        total += (float64(x[i, b]) - mean) ** 2
    return 1.0 / math.sqrt(total / len(x) + NORM_EPS)


@part(void(Matrix, Matrix, int64))
def standardise(x, y, n):
    """y = (x - mean) / std, over n columns."""
    for b in range(n):
        mean = mean_of(x, b)
        scale = inverse_std(x, b, mean)
        for i in range(len(x)):
            y[i, b] = float32((float64(x[i, b]) - mean) * scale)


@part(void(Matrix, Matrix, Matrix, int64))
def standardise_back(x, dy, dx, n):
    """The slope by x from that by y: dx = (dy - mean dy - y mean (y dy)) / std."""
    for b in range(n):
        mean = mean_of(x, b)
        scale = inverse_std(x, b, mean)
        plain, along = 0.0, 0.0
        for i in range(len(x)):
            plain += float64(dy[i, b])
            along += float64(dy[i, b]) * (float64(x[i, b]) - mean) * scale
        plain, along = plain / len(x), along / len(x)
        for i in range(len(x)):
            y = (float64(x[i, b]) - mean) * scale
            dx[i, b] = float32((float64(dy[i, b]) - plain - y * along) * scale)


@part(void(Vector, Rows, int64, int64, Matrix, int64))
def forward(parameters, layers, begin, end, work, n):
    """Fills what layers begin to end give, from the first n columns of what they read."""
    for layer in range(begin, end):
        weight, bias, inputs = layers[layer, WEIGHT], layers[layer, BIAS], layers[layer, INPUTS]
        outputs, activation = layers[layer, OUTPUTS], layers[layer, ACTIVATION]
        x = work[layers[layer, READS] : layers[layer, READS] + inputs]
        y = work[layers[layer, FILLS] : layers[layer, FILLS] + outputs]
        for o in range(outputs if weight >= 0 else 0):
            start = parameters[bias + o] if bias >= 0 else _ZERO
            for b in range(n):
                y[o, b] = start
        if weight < 0:
            standardise(x, y, n)
        elif work.shape[1] == 1:  # one sample: the weight's own rows are what is summed along
            only = x.reshape(inputs)
            for o in range(outputs):
                row = parameters[weight + o * inputs : weight + (o + 1) * inputs]
                total = _ZERO
                for i in range(inputs):
                    total += row[i] * only[i]
                y[o, 0] += total
        elif layers[layer, LARGE]:
            add_large_product(parameters[weight:], inputs, 1, x, y, n)
        else:
            add_product(parameters[weight:], inputs, 1, x, y, n)
        if activation != IDENTITY:
            activate(activation, y, n)


@part(void(Vector, Rows, int64, int64, Matrix, Matrix, Vector, int64))
def backward(parameters, layers, begin, end, work, slope, gradient, n):
    """From the loss's slope by the outputs, in the rows of `slope` that the last of layers begin to end fill, to its
    gradient, laid out as the parameters.

    The slope of what a layer reads is made as well, unless it reads the inputs, row 0.
    """
    for layer in range(end - 1, begin - 1, -1):
        weight, bias, inputs = layers[layer, WEIGHT], layers[layer, BIAS], layers[layer, INPUTS]
        outputs, activation = layers[layer, OUTPUTS], layers[layer, ACTIVATION]
        reads, fills = layers[layer, READS], layers[layer, FILLS]
        y, dy = work[fills : fills + outputs], slope[fills : fills + outputs]
        x, dx = work[reads : reads + inputs], slope[reads : reads + inputs]
        deactivate(activation, y, dy, n)
        for o in range(outputs if bias >= 0 else 0):
            total = _ZERO
            for b in range(n):
                total += dy[o, b]
            gradient[bias + o] = total
        if weight < 0:
            standardise_back(x, dy, dx, n)
            continue
        if reads > 0:
            for i in range(inputs):
                for b in range(n):
                    dx[i, b] = _ZERO
        if work.shape[1] == 1:
            only, back = x.reshape(inputs), dx.reshape(inputs)
            for o in range(outputs):
                factor, row = dy[o, 0], parameters[weight + o * inputs : weight + (o + 1) * inputs]
                out = gradient[weight + o * inputs : weight + (o + 1) * inputs]
                for i in range(inputs):
                    out[i] = factor * only[i]
                if reads > 0:
                    for i in range(inputs):
                        back[i] += factor * row[i]
        elif layers[layer, LARGE]:
            large_outer_products(dy, x, gradient[weight:], n)
            if reads > 0:
                add_large_product(parameters[weight:], 1, inputs, dy, dx, n)
        else:
            outer_products(dy, x, gradient[weight:], n)
            if reads > 0:
                add_product(parameters[weight:], 1, inputs, dy, dx, n)


@part(void(Vector, Rows, int64, int64, Matrix, Matrix, int64, int64))
def back_to_inputs(parameters, layers, begin, end, work, slope, n, first):
    """`backward` to the slope by the inputs, from row `first` on, and to no gradient."""
    for layer in range(end - 1, begin - 1, -1):
        weight, inputs, outputs = layers[layer, WEIGHT], layers[layer, INPUTS], layers[layer, OUTPUTS]
        reads, fills = layers[layer, READS], layers[layer, FILLS]
        low = 0 if reads > 0 else first
        x, dx = work[reads : reads + inputs], slope[reads + low : reads + inputs]
        dy = slope[fills : fills + outputs]
        deactivate(layers[layer, ACTIVATION], work[fills : fills + outputs], dy, n)
        if weight < 0:
            standardise_back(x, dy, dx, n)
            continue
        for i in range(len(dx)):
            for b in range(n):
                dx[i, b] = _ZERO
        if layers[layer, LARGE]:
            add_large_product(parameters[weight + low :], 1, inputs, dy, dx, n)
        else:
            add_product(parameters[weight + low :], 1, inputs, dy, dx, n)
