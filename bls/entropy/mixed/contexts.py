"""What is known of a row before its symbols: sums and contexts from the channels coded before and the rows above.

The walk (`bls.entropy.mixed.row`) adds what the symbols to the left contribute. All planes have margins of zeros.
"""

import numpy as np
from numba import njit

from bls.entropy.tree import CONTEXT_OF_ACTIVITY, MARGIN

MAX_ACTIVITY = len(CONTEXT_OF_ACTIVITY) - 1
ACTIVITY, MAGNITUDE, VALUE, SIGNS_ABOVE, ENERGY_ABOVE, TOTAL = range(6)
"""Arrays of a row: the three sums without the symbols to the left, and contexts or parts of them."""
ROW_SIZE = 6
MAX_IN_TOTAL = 15
"""A magnitude counts at most this much in the total over all channels."""


@njit(nogil=True)
def sum_sources(sums, planes, terms, c):
    """Set the sums of a channel at all positions to its offset and what its sources contribute.

    With the neighbours' they stay below 2**30 + 38 * 255 * 2**15 < 2**31.
    """
    offsets, _, sources, places, weights = terms
    stride = sums.shape[1]
    sums[:] = offsets[c]
    flat = sums.reshape(-1)
    first, last = MARGIN * stride, flat.size - stride - MARGIN
    target = flat[first:last]
    for s in range(sources.shape[1]):
        weight = weights[c, s]
        if weight != 0:
            plane = planes[sources[c, s]].reshape(-1)
            shift = (places[c, s] // 3 - 1) * stride + places[c, s] % 3 - 1
            source = plane[first + shift : last + shift]
            for i in range(target.size):
                target[i] += weight * np.int32(source[i])


# Rows and their neighbours are slices, indexed from 0: numba does not vectorise what may be indexed from the end.


@njit(nogil=True)
def add_above(row, sums, plane, y, weights):
    """Set a row to its sums and what the neighbours in the two rows above contribute."""
    size = row.size - 2 * MARGIN
    row, sums, above2 = row[MARGIN:], sums[MARGIN:], plane[y - 2, MARGIN:]
    above_left, above, above_right = plane[y - 1, MARGIN - 1 :], plane[y - 1, MARGIN:], plane[y - 1, MARGIN + 1 :]
    up, up_left, up_right, up2 = weights[2], weights[3], weights[4], weights[5]
    for x in range(size):
        row[x] = (
            sums[x]
            + up * np.int32(above[x])
            + up_left * np.int32(above_left[x])
            + up_right * np.int32(above_right[x])
            + up2 * np.int32(above2[x])
        )


@njit(nogil=True)
def set_contexts_of_above(row, values_above, errors_above, total, y, c):
    """Set what contexts of a row do not depend on the symbols to the left."""
    size = values_above.size - 2 * MARGIN
    signs, energy, contexts = row[SIGNS_ABOVE, MARGIN:], row[ENERGY_ABOVE, MARGIN:], row[TOTAL, MARGIN:]
    left, middle, right = values_above[MARGIN - 1 :], values_above[MARGIN:], values_above[MARGIN + 1 :]
    for x in range(size):
        signs[x] = 9 * sign(middle[x]) + 3 * sign(left[x]) + sign(right[x])
    left, middle, right = errors_above[MARGIN - 1 :], errors_above[MARGIN:], errors_above[MARGIN + 1 :]
    for x in range(size):
        energy[x] = 2 * middle[x] + left[x] + right[x]
    left, middle, right = total[y, MARGIN - 1 :], total[y, MARGIN:], total[y, MARGIN + 1 :]
    above, below = total[y - 1, MARGIN:], total[y + 1, MARGIN:]
    # Division by c + 4, exact as 8 * around * (c + 4) < 2**48.
    reciprocal = (1 << 48) // (c + 4) + 1
    for x in range(size):
        around = above[x] + left[x] + 2 * middle[x] + right[x] + below[x]
        contexts[x] = CONTEXT_OF_ACTIVITY[min((8 * np.int64(around) * reciprocal >> 48) + 2, MAX_ACTIVITY)]


@njit(nogil=True, inline="always")
def sign(value):
    """Return 0 for zero, 1 above, 2 below."""
    return np.int32(value > 0) + 2 * np.int32(value < 0)


@njit(nogil=True)
def set_magnitudes(magnitudes, values):
    """Set a row's magnitudes."""
    for x in range(values.size):
        magnitudes[x] = abs(values[x])


@njit(nogil=True)
def add_to_total(total, magnitudes):
    """Add a channel's magnitudes to the total over all channels coded."""
    for y in range(total.shape[0]):
        for x in range(total.shape[1]):
            total[y, x] += min(np.int32(magnitudes[y, x]), np.int32(MAX_IN_TOTAL))
