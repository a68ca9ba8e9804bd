"""What the unified core's array computes, operation by operation, compiled.

Floating-point addition is not associative: a result is defined by the order of its sums. Here it is, for
an array of L x L (:mod:`streamtrain.unified.plan` says what its passes and lanes hold):

- FP, BP: the L products of a pass are added in a tree of neighbours, and their sum is added to the
  accumulator, pass after pass. It starts with the bias, or with zero;
- WU: the product of an error and an input is added to the accumulator of its weight: image after
  image, row after row, pixel after pixel. It starts with zero;
- sums of batch norms: the same, but a channel has :data:`PARTIALS` accumulators, which take the pixels of
  an image in turn.

Every operation rounds to the accumulator's format. An input that does not exist (of a lane without a
channel, or outside the map) is a positive zero, and is multiplied and added as one.

Arrays hold float32 (operands of fewer bits are float32 numbers, too) or int64 codes of fixed point. Which
arithmetic it is, three scalars say: :data:`FLOAT` or :func:`fixed`. Maps are (images, tiles of channels, rows,
columns, lanes), weights (output tiles, passes, lanes out, lanes in).
"""

import numpy as np

from streamtrain.jit import njit

__all__ = ["FLOAT", "PARTIALS", "back_propagate", "channel_sums", "fixed", "forward", "gradients"]

FLOAT = (np.float32(2**-126), np.float32(-np.inf), np.float32(np.inf))
"""Smallest normal number, and the limits of sums, of FP32."""


PARTIALS = 8
"""Accumulators of a batch norm's channel: an adder is done with one when the others have had their turn."""


def fixed(fmt):
    """The same of sums in a :class:`~streamtrain.numeric.Fixed` format, as codes."""
    return np.int64(0), np.int64(fmt.codes[0]), np.int64(fmt.codes[-1])


# Results go to arrays before they are used again: that gives them back their type.


@njit(cache=True)
def _times(a, b, numbers):
    """A product. What is too small, as gates decide it, is zero (see multiply_float32)."""
    product, tiny = a * b, numbers[0]
    scale = np.float32(2**24)
    if -2 * tiny < product < 2 * tiny and abs(np.float32(a) * scale * np.float32(b)) < scale * tiny:
        return product * 0
    return product


@njit(cache=True)
def _plus(a, b, numbers):
    """A sum: zero if it is subnormal, and saturated."""
    total, (tiny, low, high) = a + b, numbers
    if -tiny < total < tiny:
        return total * 0
    if total < low:
        return low
    return high if total > high else total


@njit(cache=True)
def _tree(terms, numbers):
    """Sum of neighbours, of their sums, and so on; destroys ``terms``."""
    count = len(terms)
    while count > 1:
        half = count // 2
        for i in range(half):
            terms[i] = _plus(terms[2 * i], terms[2 * i + 1], numbers)
        if count % 2:
            terms[half] = terms[count - 1]
        count = half + count % 2
    return terms[0]


@njit(cache=True)
def forward(x, weights, bias, tile, row, column, lane, exists, stride, pad, numbers, z):
    """FP: outputs before pooling and rounding.

    Parameters
    ----------
    x : array (images, tiles, rows, columns, words of a pixel)
    weights : array (output tiles, passes, L, L)
    bias : array (output tiles, L)
    tile, row, column, lane, exists
        :class:`~streamtrain.unified.plan.Passes`.
    stride, pad : :class:`int`
    numbers : tuple
        :data:`FLOAT` or :func:`fixed`.
    z : array (images, output tiles, rows, columns, L)
        Becomes the outputs.
    """
    images, outs, rows, columns, lanes = z.shape
    vector, terms = np.empty(lanes, z.dtype), np.empty(lanes, z.dtype)
    for image in range(images):
        for out in range(outs):
            for r in range(rows):
                for c in range(columns):
                    z[image, out, r, c] = bias[out]
                    for p in range(len(tile)):
                        for n in range(lanes):
                            y = r * stride - pad + row[p, n]
                            q = c * stride - pad + column[p, n]
                            inside = 0 <= y < x.shape[2] and 0 <= q < x.shape[3] and exists[p, n]
                            vector[n] = x[image, tile[p], y, q, lane[n]] if inside else 0
                        for m in range(lanes):
                            for n in range(lanes):
                                terms[n] = _times(vector[n], weights[out, p, m, n], numbers)
                            z[image, out, r, c, m] = _plus(
                                z[image, out, r, c, m], _tree(terms, numbers), numbers
                            )


@njit(cache=True)
def back_propagate(errors, weights, kernel, stride, pad, numbers, dx):
    """BP: errors of the inputs, before their mask and rounding.

    An input's error takes one pass for each tile of output channels and each tap that reaches it,
    from the last tap to the first, so that the errors are met in the order in which they lie. The
    weights of a pass are those of FP, transposed.

    Parameters
    ----------
    errors : array (images, output tiles, rows, columns, L)
        Of the outputs before pooling.
    weights : array (output tiles, passes, L, L)
        Passes are tiles of input channels, and the taps of each.
    kernel, stride, pad : :class:`int`
    numbers : tuple
    dx : array (images, input tiles, rows, columns, L)
        Becomes the errors.
    """
    images, tiles, rows, columns, lanes = dx.shape
    terms, zero = np.empty(lanes, dx.dtype), np.zeros(1, dx.dtype)[0]
    for image in range(images):
        for tile in range(tiles):
            for y in range(rows):
                for q in range(columns):
                    dx[image, tile, y, q] = 0
                    for out in range(errors.shape[1]):
                        for tap in range(kernel * kernel - 1, -1, -1):
                            r, c = y + pad - tap // kernel, q + pad - tap % kernel
                            if r % stride or c % stride:
                                continue
                            r, c = r // stride, c // stride
                            inside = 0 <= r < errors.shape[2] and 0 <= c < errors.shape[3]
                            p = tile * kernel * kernel + tap
                            for n in range(lanes):
                                for m in range(lanes):
                                    error = errors[image, out, r, c, m] if inside else zero
                                    terms[m] = _times(error, weights[out, p, m, n], numbers)
                                dx[image, tile, y, q, n] = _plus(
                                    dx[image, tile, y, q, n], _tree(terms, numbers), numbers
                                )


@njit(cache=True)
def gradients(x, errors, tile, row, column, lane, exists, stride, pad, numbers, one, dw, db):
    """WU: gradients of weights and biases, summed over all images.

    Parameters
    ----------
    x, tile, row, column, lane, exists, stride, pad, numbers
        As for :func:`forward`.
    errors : array (images, output tiles, rows, columns, L)
    one : scalar
        What an operand is multiplied with to become an accumulator: 1, or more in fixed point.
    dw : array (output tiles, passes, L, L)
        Becomes the gradients.
    db : array (output tiles, L)
        Becomes those of the biases.
    """
    images, outs, rows, columns, lanes = errors.shape
    vector, terms = np.empty(lanes, dw.dtype), np.empty(lanes, dw.dtype)
    dw[...] = 0
    db[...] = 0
    for image in range(images):
        for out in range(outs):
            for r in range(rows):
                for c in range(columns):
                    for m in range(lanes):
                        terms[0] = errors[image, out, r, c, m] * one
                        db[out, m] = _plus(db[out, m], terms[0], numbers)
                    for p in range(len(tile)):
                        for n in range(lanes):
                            y = r * stride - pad + row[p, n]
                            q = c * stride - pad + column[p, n]
                            inside = 0 <= y < x.shape[2] and 0 <= q < x.shape[3] and exists[p, n]
                            vector[n] = x[image, tile[p], y, q, lane[n]] if inside else 0
                        for m in range(lanes):
                            error = errors[image, out, r, c, m]
                            for n in range(lanes):
                                terms[n] = _times(error, vector[n], numbers)
                                dw[out, p, m, n] = _plus(dw[out, p, m, n], terms[n], numbers)


@njit(cache=True)
def channel_sums(x, errors, numbers, sums, products):
    """WU of batch norms: sums of errors, and of errors times inputs, of each channel over all images.

    Parameters
    ----------
    x, errors : arrays (images, tiles, rows, columns, L)
    numbers : tuple
    sums, products : arrays (tiles, PARTIALS, L)
        Become the sums.
    """
    images, tiles, rows, columns, lanes = x.shape
    term = np.empty(1, sums.dtype)
    sums[...] = 0
    products[...] = 0
    for image in range(images):
        for tile in range(tiles):
            for pixel in range(rows * columns):
                r, c, p = pixel // columns, pixel % columns, pixel % PARTIALS
                for n in range(lanes):
                    error = errors[image, tile, r, c, n]
                    term[0] = error
                    sums[tile, p, n] = _plus(sums[tile, p, n], term[0], numbers)
                    term[0] = _times(error, x[image, tile, r, c, n], numbers)
                    products[tile, p, n] = _plus(products[tile, p, n], term[0], numbers)
