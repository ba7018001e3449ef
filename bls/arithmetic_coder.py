"""The adaptive entropy coder: a binary arithmetic coder whose probabilities adapt as it goes. Integers only.

Channel by channel, in raster order, each symbol by the decisions of `bls.binarization`. One routine walks the tree for
encoder and decoder alike, so that they cannot disagree; counting decisions (for `AdaptiveModel.fit`) is its third use.
Interval arithmetic, carry and termination are derived in docs/entropy-coding.md.

Letters in shapes: c channels, h and w rows and columns of latents, k contexts, d decisions.
"""

import numpy as np
from jaxtyping import Int32, UInt64
from numba import njit

from bls.adaptive_model import NUM_SOURCES, AdaptiveModel
from bls.binarization import (
    ACTIVITY_FRACTION_BITS,
    CONTEXT_OF_ACTIVITY,
    FURTHER_DECISION,
    IS_MODE_NOT,
    IS_SMALLER,
    NUM_DECISIONS,
)
from bls.bitstream import BitstreamError

ENCODE, DECODE, COUNT = 0, 1, 2

# numba keeps unsigned arithmetic only where both operands are typed so.
ONE, EIGHT, SIXTEEN, WORD_BITS, MAX_INDEX = np.uint64(1), np.uint64(8), np.uint64(16), np.uint64(32), np.uint64(1023)
FULL_RANGE = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
MIN_RANGE = np.uint64(1 << 32)
LOW_WORD = np.uint64(0xFFFF_FFFF)
CERTAIN = np.uint32(0x7FFF_FFFF)
FAST_RATE, SLOW_RATE = np.uint32(4), np.uint32(7)

MAX_MAGNITUDE = 255
MARGIN = 2
MAX_ESCAPE_BITS = 32
"""The distance of two int32 is below 2**32."""
MAX_WORDS_PER_SYMBOL = 132
"""257 decisions of at most 16 bits, 65 of the escape, rounded up: what one symbol may take."""


def encode(symbols: Int32[np.ndarray, "c h w"], model: AdaptiveModel) -> bytes:
    """Code symbols into a payload."""
    assert len(symbols) == model.channels
    words, _ = _code(ENCODE, np.empty(256, np.uint32), np.ascontiguousarray(symbols), _states(model), *_integers(model))
    return bytes(words.astype(">u4").tobytes()).rstrip(b"\0")


def decode(payload: bytes, shape: tuple[int, int, int], model: AdaptiveModel) -> Int32[np.ndarray, "c h w"]:
    """Decode the symbols of a payload.

    Raises:
        BitstreamError: the payload is not what `encode` writes for any symbols of this shape.
    """
    assert shape[0] == model.channels
    # Two words of zeros: the decoder starts with two, and the encoder cuts zeros off the end.
    padded = payload + b"\0" * (-len(payload) % 4 + 8)
    words = np.frombuffer(padded, ">u4").astype(np.uint32)
    symbols = np.empty(shape, np.int32)
    _, is_complete = _code(DECODE, words, symbols, _states(model), *_integers(model))
    if not is_complete or payload.endswith(b"\0"):
        raise BitstreamError(
            f"payload has {len(payload)} bytes that no {shape[0]}x{shape[1]}x{shape[2]} symbols are coded to: "
            "it is truncated or damaged, fetch it again"
        )
    return symbols


def count_decisions(
    symbols: Int32[np.ndarray, "c h w"], model: AdaptiveModel, counts: UInt64[np.ndarray, "c k d"]
) -> None:
    """Add the decisions that these symbols take: yes in the upper 32 bits of each count, no in the lower."""
    _code(
        COUNT,
        np.empty(1, np.uint32),
        np.ascontiguousarray(symbols),
        counts.reshape(model.channels, -1),
        *_integers(model),
    )


def _states(model: AdaptiveModel) -> UInt64[np.ndarray, "c kd"]:
    """Return the first states: two estimates in 31 bits each of the probability of yes, equal at first."""
    estimate = model.probabilities.reshape(model.channels, -1).astype(np.uint64) << np.uint64(15)
    return estimate << WORD_BITS | estimate


def _integers(model: AdaptiveModel) -> tuple[np.ndarray, ...]:
    """Return the arrays that `_code` takes last."""
    return (
        model.mode,
        model.below,
        model.above,
        model.neighbour_weights,
        model.sources,
        model.source_weights,
        model.offset,
    )


@njit(nogil=True, inline="always")
def _decide(mode, words, low, range_, position, states, index, bit):
    """Code one decision and adapt its state; return the interval, the position, and the decision.

    The interval is [low, low + range_) of the next 64 bits; the decoder's low is that of the payload less the
    encoder's. 2**32 <= range_ < 2**64 before and after; 1 <= probability < 2**16.
    """
    state = states[index]
    if mode == COUNT:
        states[index] = state + (ONE << WORD_BITS if bit else ONE)
        return low, range_, position, bit
    fast, slow = np.uint32(state >> WORD_BITS), np.uint32(state)
    probability = (np.uint64(fast) + np.uint64(slow)) >> SIXTEEN | ONE
    split = (range_ >> SIXTEEN) * probability
    if mode == DECODE:
        bit = low < split
    if bit:
        range_ = split
        fast += (CERTAIN - fast) >> FAST_RATE
        slow += (CERTAIN - slow) >> SLOW_RATE
    else:
        range_ -= split
        fast -= fast >> FAST_RATE
        slow -= slow >> SLOW_RATE
        low, carries = _advance(mode, low, split)
        if carries:
            _carry(words, position)
    states[index] = np.uint64(fast) << WORD_BITS | np.uint64(slow)
    low, range_, position = _renormalize(mode, words, low, range_, position)
    return low, range_, position, bit


@njit(nogil=True, inline="always")
def _decide_evenly(mode, words, low, range_, position, bit):
    """Code one decision of probability 1/2."""
    split = range_ >> ONE
    if mode == DECODE:
        bit = low < split
    if bit:
        range_ = split
    else:
        range_ -= split
        low, carries = _advance(mode, low, split)
        if carries:
            _carry(words, position)
    low, range_, position = _renormalize(mode, words, low, range_, position)
    return low, range_, position, bit


@njit(nogil=True, inline="always")
def _advance(mode, low, split):
    """Move the interval's lower end by `split`; tell whether that carries into the words already written."""
    if mode == DECODE:
        return low - split, False
    low += split
    return low, low < split


@njit(nogil=True, inline="always")
def _word_at(words, position):
    """Return a word of the payload; the last is zero, and so are all after it."""
    return np.uint64(words[min(position, np.uint64(words.size - 1))])


@njit(nogil=True)
def _carry(words, position):
    """Add one to the number that the words before `position` form; the interval never leaves [0, 1), so it has room."""
    position -= ONE
    while words[position] == LOW_WORD:
        words[position] = 0
        position -= ONE
    words[position] += np.uint32(1)


@njit(nogil=True, inline="always")
def _renormalize(mode, words, low, range_, position):
    """Shift one word out of the interval, or into the decoder's window, when its range has become small.

    One word suffices: a decision leaves a range of at least 2**16, since before it was at least 2**32.
    """
    if range_ < MIN_RANGE:
        if mode == DECODE:
            low = low << WORD_BITS | _word_at(words, position)
        else:
            words[position] = np.uint32(low >> WORD_BITS)
            low <<= WORD_BITS
        range_ <<= WORD_BITS
        position += ONE
    return low, range_, position


@njit(nogil=True)
def _escape(mode, words, low, range_, position, value):
    """Code an integer from 1 on by Exp-Golomb: its number of bits after the first in unary, then these bits."""
    num_bits = 0
    while num_bits <= MAX_ESCAPE_BITS:
        low, range_, position, more = _decide_evenly(mode, words, low, range_, position, value >> (num_bits + 1) > 0)
        if not more:
            break
        num_bits += 1
    decoded = 1
    for shift in range(num_bits - 1, -1, -1):
        low, range_, position, bit = _decide_evenly(mode, words, low, range_, position, value >> shift & 1 > 0)
        decoded = 2 * decoded + (1 if bit else 0)
    return low, range_, position, decoded


@njit(nogil=True)
def _activity_from_sources(activity, magnitudes, sources, weights, offset):
    """Sum the weighted magnitudes of channels already coded, for all positions at once."""
    activity[:] = offset
    for s in range(0, NUM_SOURCES, 4):
        a, b, c, d = (
            magnitudes[sources[s]],
            magnitudes[sources[s + 1]],
            magnitudes[sources[s + 2]],
            magnitudes[sources[s + 3]],
        )
        wa, wb, wc, wd = (
            np.int32(weights[s]),
            np.int32(weights[s + 1]),
            np.int32(weights[s + 2]),
            np.int32(weights[s + 3]),
        )
        for i in range(activity.size):
            activity[i] += wa * np.int32(a[i]) + wb * np.int32(b[i]) + wc * np.int32(c[i]) + wd * np.int32(d[i])


@njit(nogil=True)
def _grow(words, position, extra):
    grown = np.empty(2 * words.size + extra, np.uint32)
    grown[:position] = words[:position]
    return grown


@njit(nogil=True)
def _terminate(low, range_):
    """Return the number in [low, low + range_) with the most zero bits at its end, modulo 2**64."""
    if low == 0 or np.uint64(0) - low < range_:
        return np.uint64(0)
    unit = ONE << np.uint64(63)
    while True:
        value = (low + (unit - ONE)) & ~(unit - ONE)
        if value - low < range_:
            return value
        unit >>= ONE


@njit(nogil=True, cache=True)
def _code(mode, words, symbols, first_states, modes, below, above, neighbours, sources, weights, offsets):
    """Walk through all symbols: encode them, decode them, or count their decisions into `first_states`.

    Returns the words written or read, and whether these are what the encoder writes for the symbols.
    """
    channels, height, width = symbols.shape
    row = width + 2 * MARGIN
    # Magnitudes: distances from the mode. The margin's zeros stand for what lies outside.
    magnitudes = np.zeros((channels, (height + MARGIN) * row), np.uint8)
    activity = np.empty((height + MARGIN) * row, np.int32)
    low, range_, position = np.uint64(0), FULL_RANGE, np.uint64(0)
    if mode == DECODE:
        low = np.uint64(words[0]) << WORD_BITS | np.uint64(words[1])
        position = np.uint64(2)
    for c in range(channels):
        states = first_states[c] if mode == COUNT else first_states[c].copy()
        own = magnitudes[c]
        _activity_from_sources(activity, magnitudes, sources[c], weights[c], offsets[c])
        left, left2, up, up_left, up_right, up2 = (
            np.uint32(neighbours[c, 0]),
            np.uint32(neighbours[c, 1]),
            np.int32(neighbours[c, 2]),
            np.int32(neighbours[c, 3]),
            np.int32(neighbours[c, 4]),
            np.int32(neighbours[c, 5]),
        )
        channel_mode, longest_below, longest_above = np.int64(modes[c]), np.int64(below[c]), np.int64(above[c])
        for y in range(height):
            start = (y + MARGIN) * row + MARGIN
            for i in range(start, start + width):
                activity[i] += (
                    up * np.int32(own[i - row])
                    + up_left * np.int32(own[i - row - 1])
                    + up_right * np.int32(own[i - row + 1])
                    + up2 * np.int32(own[i - 2 * row])
                )
            if mode == ENCODE and words.size - np.int64(position) < width * MAX_WORDS_PER_SYMBOL + 2:
                words = _grow(words, position, width * MAX_WORDS_PER_SYMBOL + 2)
            last, last_but_one = np.uint32(0), np.uint32(0)
            for x in range(width):
                around = np.uint32(activity[start + x]) + left * last + left2 * last_but_one
                scaled = min(np.uint64(around >> np.uint32(ACTIVITY_FRACTION_BITS)), MAX_INDEX)
                base = np.uint64(CONTEXT_OF_ACTIVITY[scaled]) * np.uint64(NUM_DECISIONS)
                offset = np.int64(0) if mode == DECODE else np.int64(symbols[c, y, x]) - channel_mode
                distance = abs(offset)
                low, range_, position, differs = _decide(
                    mode, words, low, range_, position, states, base + np.uint64(IS_MODE_NOT), distance > 0
                )
                magnitude = np.int64(0)
                if differs:
                    low, range_, position, is_smaller = _decide(
                        mode, words, low, range_, position, states, base + np.uint64(IS_SMALLER), offset < 0
                    )
                    longest = longest_below if is_smaller else longest_above
                    magnitude = np.int64(1)
                    further = longest > 0
                    while further:
                        index = base + np.uint64(FURTHER_DECISION[magnitude])
                        low, range_, position, further = _decide(
                            mode, words, low, range_, position, states, index, distance > magnitude
                        )
                        if further:
                            magnitude += 1
                            if magnitude > longest:
                                break
                    if mode == COUNT:
                        magnitude = distance
                    elif magnitude > longest:
                        low, range_, position, escaped = _escape(mode, words, low, range_, position, distance - longest)
                        magnitude = longest + escaped
                    if mode == DECODE:
                        value = channel_mode - magnitude if is_smaller else channel_mode + magnitude
                        if value < -(1 << 31) or value >= 1 << 31:
                            return words, False
                        symbols[c, y, x] = value
                elif mode == DECODE:
                    symbols[c, y, x] = channel_mode
                last_but_one = last
                last = np.uint32(min(magnitude, np.int64(MAX_MAGNITUDE)))
                own[start + x] = last
    if mode == ENCODE:
        value = _terminate(low, range_)
        if value < low:
            _carry(words, position)
        words[position] = np.uint32(value >> WORD_BITS)
        words[position + ONE] = np.uint32(value)
        return words[: position + np.uint64(2)], True
    if mode == DECODE:
        # The window less the decoder's low is the encoder's, which tells where it would have ended.
        window = _word_at(words, position - np.uint64(2)) << WORD_BITS | _word_at(words, position - ONE)
        is_read = position >= np.uint64(words.size - 2)
        return words, is_read and window == _terminate(window - low, range_)
    return words, True
