"""The adaptive entropy coder: a binary arithmetic coder whose probabilities adapt as it goes. Integers only.

Channel by channel, in raster order, each symbol by the decisions of `bls.entropy.tree`. One routine walks the tree for
encoder and decoder alike, so that they cannot disagree; counting decisions (for `bls.entropy.adaptive.fitting`) is its
third use. The interval is `bls.entropy.interval`'s; docs/entropy-coding.md derives it.

Letters in shapes: c channels, h and w rows and columns of latents, k contexts, d decisions.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32, UInt64
from numba import njit

from bls.entropy.adaptive.model import NUM_SOURCES, AdaptiveModel
from bls.entropy.compiled import hash_of_sources
from bls.entropy.interval import (
    COUNT,
    DECODE,
    ENCODE,
    LOW_WORD,
    MIN_RANGE,
    ONE,
    WORD_BITS,
    check_payload,
    code_escape,
    first_interval,
    is_terminated,
    narrow,
    renormalize,
    terminate,
    to_payload,
    to_words,
    with_room,
    writable,
)
from bls.entropy.tree import (
    ACTIVITY_FRACTION_BITS,
    CERTAIN,
    CONTEXT_OF_ACTIVITY,
    FURTHER_DECISION,
    IS_MODE_NOT,
    IS_SMALLER,
    MARGIN,
    MAX_MAGNITUDE,
    MAX_SYMBOL,
    MIN_SYMBOL,
    NUM_DECISIONS,
)

COMPILED_IN = ("interval.py", "table.py", "tree.py", "adaptive/model.py")
"""The other files that contribute to the machine code, and their hash (`bls.entropy.compiled`)."""
COMPILED_IN_SHA256 = "b504f789cd6519aa2e8a045ced81ba4f784f90d3d07ef6793a1b806e1df0f6e9"
IS_CACHED = hash_of_sources(COMPILED_IN) == COMPILED_IN_SHA256

# numba keeps unsigned arithmetic only where both operands are typed so.
SIXTEEN = np.uint64(16)
FAST_RATE, SLOW_RATE = np.uint64(4), np.uint64(7)
FRACTION_BITS, MAX_ACTIVITY = np.uint64(ACTIVITY_FRACTION_BITS), np.uint64(len(CONTEXT_OF_ACTIVITY) - 1)


@dataclass(frozen=True)
class AdaptiveCoder:
    """The entropy coder whose probabilities start from a model and adapt."""

    model: AdaptiveModel

    def encode(self, symbols: Int32[np.ndarray, "c h w"]) -> bytes:
        """Code symbols into a payload."""
        model = self.model
        assert len(symbols) == model.channels and symbols.dtype == np.int32
        words, _ = _code(ENCODE, np.empty(256, np.uint32), writable(symbols), _states(model), _integers(model))
        return to_payload(words)

    def decode(self, payload: bytes, shape: tuple[int, int, int]) -> Int32[np.ndarray, "c h w"]:
        """Decode the symbols of a payload.

        Raises:
            BitstreamError: the payload is not what `encode` writes for any symbols of this shape.
        """
        assert shape[0] == self.model.channels
        symbols = np.empty(shape, np.int32)
        _, is_complete = _code(DECODE, to_words(payload), symbols, _states(self.model), _integers(self.model))
        check_payload(payload, shape, is_complete=is_complete)
        return symbols


def count_decisions(
    symbols: Int32[np.ndarray, "c h w"], model: AdaptiveModel, counts: UInt64[np.ndarray, "c k d"]
) -> None:
    """Add the decisions that these symbols take: yes in the upper 32 bits of each count, no in the lower."""
    assert len(symbols) == model.channels and symbols.dtype == np.int32 and counts.flags.c_contiguous
    _code(COUNT, np.empty(1, np.uint32), writable(symbols), counts.reshape(len(counts), -1), _integers(model))


def _states(model: AdaptiveModel) -> UInt64[np.ndarray, "c kd"]:
    """Return the first states: two estimates in 31 bits each of the probability of yes, equal at first."""
    estimate = model.probabilities.reshape(model.channels, -1).astype(np.uint64) << np.uint64(15)
    return estimate << WORD_BITS | estimate


def _integers(model: AdaptiveModel) -> tuple[np.ndarray, ...]:
    """Return the arrays that `_code` unpacks."""
    arrays = (
        model.mode,
        model.below,
        model.above,
        model.neighbour_weights,
        model.sources,
        model.source_weights,
        model.offset,
    )
    return tuple(writable(array) for array in arrays)


@njit(nogil=True, cache=IS_CACHED)
def _code(mode, words, symbols, states, model):
    """Walk through all symbols: encode them, decode them, or count their decisions into `states`.

    Returns the words written or read, and whether these are what the encoder writes for the symbols.
    """
    modes, below, above, neighbour_weights, sources, source_weights, offsets = model
    channels, height, width = symbols.shape
    # Magnitudes: distances from the mode. The margin's zeros stand for what lies outside.
    magnitudes = np.zeros((channels, height + MARGIN, width + 2 * MARGIN), np.uint8)
    planes = magnitudes.reshape(channels, -1)
    activity = np.empty((height + MARGIN, width + 2 * MARGIN), np.int32)
    interval, is_valid = first_interval(mode, words)
    if not is_valid:
        return words, False
    for c in range(channels):
        own, weights = magnitudes[c], neighbour_weights[c]
        chain = np.int64(modes[c]), np.int64(below[c]), np.int64(above[c])
        _set_activity(activity.reshape(-1), planes, sources[c], source_weights[c], offsets[c])
        for y in range(height):
            activity_row = activity[y + MARGIN]
            _add_activity_above(activity_row, own[y + 1], own[y], weights)
            if mode == ENCODE:
                words = with_room(words, interval[2], width)
            interval, is_valid = _code_row(
                mode, words, interval, states[c], symbols[c, y], activity_row, own[y + MARGIN], weights, chain
            )
            if not is_valid:
                return words, False
    if mode == ENCODE:
        return terminate(words, interval), True
    return words, mode == COUNT or is_terminated(words, interval)


# The walk stands in one function, a row at a time, and what it calls for every decision is inlined and takes no array:
# numba counts references to arrays at every call, inlined or not, by atomic operations that take longer than the rest.


@njit(nogil=True)
def _code_row(mode, words, interval, states, symbols, activity, magnitudes, weights, chain):
    """Walk the tree for every symbol of a row; return the interval, and whether all symbols are int32."""
    channel_mode, below, above = chain
    left, left2 = np.uint64(weights[0]), np.uint64(weights[1])
    last, last_but_one = np.uint64(0), np.uint64(0)
    for x in range(symbols.size):
        base = _first_state(np.uint64(activity[x + MARGIN]) + left * last + left2 * last_but_one)
        # The decoder learns from each decision what the encoder knows from the offset.
        offset = np.int64(0) if mode == DECODE else np.int64(symbols[x]) - channel_mode
        distance, magnitude, is_smaller, longest = abs(offset), np.int64(-1), False, above
        while magnitude <= longest:
            # Magnitude: how much is known already; -1 before the first decision, 0 before "is it smaller?".
            if magnitude < 0:
                decision, yes = np.uint64(IS_MODE_NOT), offset != 0
            elif magnitude == 0:
                decision, yes = np.uint64(IS_SMALLER), offset < 0
            else:
                decision, yes = np.uint64(FURTHER_DECISION[magnitude]), distance > magnitude
            state = states[base + decision]
            if mode == COUNT:
                states[base + decision] = state + (ONE << WORD_BITS if yes else ONE)
            else:
                split = (interval[1] >> SIXTEEN) * _probability(state)
                if mode == DECODE:
                    yes = interval[0] < split
                interval, carries = narrow(mode, interval, split, yes)
                if carries or interval[1] < MIN_RANGE:
                    interval = renormalize(mode, words, interval, carries)
                states[base + decision] = _adapted(state, yes)
            if magnitude == 0:
                is_smaller, longest = yes, below if yes else above
            elif not yes:
                break
            magnitude += 1
        # The mixed coder ends so, too. As one function, inlined in both, it made this coder 1.7 times as slow.
        magnitude = max(magnitude, np.int64(0))
        if magnitude > longest:
            interval, escaped = code_escape(mode, words, interval, distance - longest)
            magnitude = longest + escaped
        symbol = channel_mode - magnitude if is_smaller else channel_mode + magnitude
        if symbol < MIN_SYMBOL or symbol > MAX_SYMBOL:
            return interval, False
        if mode == DECODE:
            symbols[x] = symbol
        last_but_one = last
        last = np.uint64(min(magnitude, np.int64(MAX_MAGNITUDE)))
        magnitudes[x + MARGIN] = last
    return interval, True


@njit(nogil=True, inline="always")
def _probability(state):
    """Return the probability of yes, the mean of both estimates: 1 to 2**16 - 1."""
    return ((state >> WORD_BITS) + (state & LOW_WORD)) >> SIXTEEN | ONE


@njit(nogil=True, inline="always")
def _adapted(state, bit):
    """Return a state after a decision."""
    fast, slow = state >> WORD_BITS, state & LOW_WORD
    if bit:
        fast += (CERTAIN - fast) >> FAST_RATE
        slow += (CERTAIN - slow) >> SLOW_RATE
    else:
        fast -= fast >> FAST_RATE
        slow -= slow >> SLOW_RATE
    return fast << WORD_BITS | slow


@njit(nogil=True, inline="always")
def _first_state(activity):
    """Return the index of the first state of the context that an activity falls into."""
    context = CONTEXT_OF_ACTIVITY[min(activity >> FRACTION_BITS, MAX_ACTIVITY)]
    return np.uint64(context) * np.uint64(NUM_DECISIONS)


@njit(nogil=True)
def _set_activity(activity, planes, sources, weights, offset):
    """Sum the weighted magnitudes of channels already coded, for all positions at once.

    With the neighbours' the sum stays below 22 * 255 * 65535 + 65535 < 2**31.
    """
    activity[:] = offset
    for s in range(NUM_SOURCES):
        source, weight = planes[sources[s]], np.int32(weights[s])
        if weight > 0:
            for i in range(activity.size):
                activity[i] += weight * np.int32(source[i])


@njit(nogil=True)
def _add_activity_above(activity, above, above2, weights):
    """Add what the neighbours in the two rows above contribute to a row's activity."""
    # Slices indexed from 0: numba does not vectorise what may be indexed from the end.
    size, activity, above2 = activity.size - 2 * MARGIN, activity[MARGIN:], above2[MARGIN:]
    above_left, above, above_right = above[MARGIN - 1 :], above[MARGIN:], above[MARGIN + 1 :]
    up, up_left, up_right, up2 = (
        np.int32(weights[2]),
        np.int32(weights[3]),
        np.int32(weights[4]),
        np.int32(weights[5]),
    )
    for x in range(size):
        activity[x] += (
            up * np.int32(above[x])
            + up_left * np.int32(above_left[x])
            + up_right * np.int32(above_right[x])
            + up2 * np.int32(above2[x])
        )
