"""The mixing entropy coder: the adaptive coder's decisions, each predicted by six models at once. Integers only.

Every model has states of its own, chosen by its own context; their logits are added up, weighted, and the weights learn
from each decision which models to trust (`bls.entropy.mixed.logits`). The same tree, interval and termination as in
`bls.entropy.adaptive.coder`, and again one walk for encoder, decoder and counting. Specified in docs/entropy-coding.md.

Letters in shapes: c channels, h and w rows and columns of latents, n states, i inputs of the mixer, d decisions.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32, Int64, UInt64
from numba import njit

from bls.entropy.adaptive.model import AdaptiveModel
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
from bls.entropy.mixed.logits import LOGIT_UNITS, MAX_LOGIT, NUM_RATES, RATES, SQUASH, STRETCH, STRETCH_BITS
from bls.entropy.mixed.model import (
    CENTRE,
    DISTANCE,
    ENERGY,
    FIRST_COUNT,
    LEVEL,
    NUM_DISTANCES,
    NUM_ENERGIES,
    NUM_INPUTS,
    NUM_LEVELS,
    NUM_MODELS,
    NUM_SIGNED_DISTANCES,
    NUM_SLOTS,
    SUM_FRACTION_BITS,
    MixedModel,
    probability_shapes,
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
    NUM_CONTEXTS,
    NUM_DECISIONS,
)

COMPILED_IN = ("interval.py", "table.py", "tree.py", "adaptive/model.py", "mixed/logits.py", "mixed/model.py")
"""The other files that contribute to the machine code, and their hash (`bls.entropy.compiled`)."""
COMPILED_IN_SHA256 = "f795f36131600cf8feabbab152cdfcc2fe5ee8113d2c4ccb291fc221ea074f2b"
IS_CACHED = hash_of_sources(COMPILED_IN) == COMPILED_IN_SHA256

FIRST_OF_VALUE = 4
"""Models from this on have states by slot, those before by decision."""
LEARNING_SHIFT = 17
"""A mixer's weight moves by logit x error >> 17; fitting moves them more slowly."""

SIXTEEN, LAST_RATE = np.uint64(16), np.uint64(NUM_RATES - 1)
TO_STRETCH = np.uint64(63 - STRETCH_BITS)
MAX_ACTIVITY, MAX_LEVEL = len(CONTEXT_OF_ACTIVITY) - 1, len(LEVEL) - 1
MAX_ENERGY, MAX_DISTANCE = len(ENERGY) - 1, len(DISTANCE) - 1
MAX_VALUE = 1023
"""Predicted values, in 1/16, reach to 64 on both sides."""
VALUE_SHIFT, LEVEL_SHIFT = SUM_FRACTION_BITS - 4, SUM_FRACTION_BITS - 6
HALF_VALUE = 1 << (VALUE_SHIFT - 1)
ACTIVITY, MAGNITUDE, VALUE, SIGNS_ABOVE, ENERGY_ABOVE, TOTAL = range(6)
"""Arrays of a row: the three sums without the symbols to the left, and contexts or parts of them."""
ROW_SIZE = 6
MAX_IN_TOTAL = 15
"""A magnitude counts at most this much in the total over all channels."""


@dataclass(frozen=True)
class MixedCoder:
    """The entropy coder that mixes six models, the adaptive coder's among them."""

    adaptive: AdaptiveModel
    model: MixedModel

    def encode(self, symbols: Int32[np.ndarray, "c h w"]) -> bytes:
        """Code symbols into a payload."""
        words = _encode(symbols, self.adaptive, self.model, _mixer_weights(self.model), LEARNING_SHIFT)
        return to_payload(words)

    def decode(self, payload: bytes, shape: tuple[int, int, int]) -> Int32[np.ndarray, "c h w"]:
        """Decode the symbols of a payload.

        Raises:
            BitstreamError: the payload is not what `encode` writes for any symbols of this shape.
        """
        assert shape[0] == self.model.channels == self.adaptive.channels
        symbols = np.empty(shape, np.int32)
        mixing = _states(self.adaptive, self.model), _mixer_weights(self.model), LEARNING_SHIFT
        _, is_complete = _code(DECODE, to_words(payload), symbols, mixing, _integers(self.adaptive, self.model))
        check_payload(payload, shape, is_complete=is_complete)
        return symbols


def learn(
    symbols: Int32[np.ndarray, "c h w"],
    adaptive: AdaptiveModel,
    model: MixedModel,
    mixer_weights: Int64[np.ndarray, " cdi"],
    shift: int,
) -> None:
    """Let the mixer's weights learn from symbols, in place; larger shifts learn slower."""
    _encode(symbols, adaptive, model, mixer_weights, shift)


def _encode(
    symbols: Int32[np.ndarray, "c h w"],
    adaptive: AdaptiveModel,
    model: MixedModel,
    mixer_weights: Int64[np.ndarray, " cdi"],
    shift: int,
) -> np.ndarray:
    """Return the words of the payload; the mixer's weights are left as they were learnt."""
    assert len(symbols) == model.channels == adaptive.channels and symbols.dtype == np.int32
    mixing = _states(adaptive, model), mixer_weights, shift
    words, _ = _code(ENCODE, np.empty(256, np.uint32), writable(symbols), mixing, _integers(adaptive, model))
    return np.asarray(words)


def count_decisions(
    symbols: Int32[np.ndarray, "c h w"], adaptive: AdaptiveModel, model: MixedModel, counts: UInt64[np.ndarray, " n"]
) -> None:
    """Add to each state's count the decisions it predicts: yes in the upper 32 bits, no in the lower."""
    assert len(symbols) == model.channels == adaptive.channels and symbols.dtype == np.int32
    mixing = counts, _mixer_weights(model), LEARNING_SHIFT
    _code(COUNT, np.empty(1, np.uint32), writable(symbols), mixing, _integers(adaptive, model))


def _mixer_weights(model: MixedModel) -> Int64[np.ndarray, " cdi"]:
    return model.mixer_weights.astype(np.int64).ravel()


def _states(adaptive: AdaptiveModel, model: MixedModel) -> UInt64[np.ndarray, " n"]:
    """Return the first states of all models: the estimated probability of yes in 31 bits, then a count in 32."""
    parts = [adaptive.probabilities, *(getattr(model, name) for name in probability_shapes(model.channels))]
    estimates = np.concatenate([part.ravel() for part in parts]).astype(np.uint64) << np.uint64(15)
    return estimates << WORD_BITS | np.uint64(FIRST_COUNT)


def first_states(channels: int) -> Int64[np.ndarray, " m"]:
    """Return where the states of each model begin, and behind them where all end."""
    shapes = [(channels, NUM_CONTEXTS, NUM_DECISIONS), *probability_shapes(channels).values()]
    return np.cumsum([0, *(np.prod(shape) for shape in shapes)]).astype(np.int64)


def _integers(adaptive: AdaptiveModel, model: MixedModel) -> tuple[object, ...]:
    """Return what `_code` unpacks: the tree's shape, and of each sum offsets, neighbours' weights, and its terms."""
    chains = adaptive.mode, adaptive.below, adaptive.above
    activity = (
        adaptive.offset,
        adaptive.neighbour_weights,
        adaptive.sources,
        np.full_like(adaptive.sources, CENTRE),
        adaptive.source_weights,
    )
    magnitude = (
        model.magnitude_offset,
        model.magnitude_neighbour_weights,
        model.magnitude_sources,
        model.magnitude_places,
        model.magnitude_weights,
    )
    value = (
        np.zeros_like(model.magnitude_offset),
        model.value_neighbour_weights,
        model.value_sources,
        model.value_places,
        model.value_weights,
    )
    alike = (tuple(writable(a.astype(np.int32)) for a in arrays) for arrays in (chains, activity, magnitude, value))
    return (*alike, first_states(model.channels))


@njit(nogil=True, cache=IS_CACHED)
def _code(mode, words, symbols, mixing, model):
    """Walk through all symbols: encode them, decode them, or count their decisions into the states.

    Returns the words written or read, and whether these are what the encoder writes for the symbols.
    """
    states, weights, shift = mixing
    chains, activity_terms, magnitude_terms, value_terms, starts = model
    channels, height, width = symbols.shape
    # Signed distances from the mode, and without sign; the margin's zeros stand for what lies outside.
    shape = height + MARGIN + 1, width + 2 * MARGIN
    values, magnitudes = np.zeros((channels, *shape), np.int16), np.zeros((channels, *shape), np.uint8)
    sums, total, errors = np.empty((3, *shape), np.int32), np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    row = np.empty((ROW_SIZE, shape[1]), np.int32)
    mixer = (
        states,
        weights,
        shift,
        np.empty(NUM_MODELS, np.int64),  # each model's first state for the symbol
        np.empty(NUM_MODELS, np.uint64),  # each model's state for the decision
        np.full(NUM_INPUTS, LOGIT_UNITS, np.int64),  # their logits, and the constant
    )
    interval, is_valid = first_interval(mode, words)
    if not is_valid:
        return words, False
    for c in range(channels):
        _sum_sources(sums[0], magnitudes, activity_terms, c)
        _sum_sources(sums[1], magnitudes, magnitude_terms, c)
        _sum_sources(sums[2], values, value_terms, c)
        errors[:] = 0
        neighbours = activity_terms[1][c], magnitude_terms[1][c], value_terms[1][c]
        chain = np.int64(chains[0][c]), np.int64(chains[1][c]), np.int64(chains[2][c])
        channel = c, chain, neighbours, starts
        for y in range(MARGIN, MARGIN + height):
            _add_above(row[ACTIVITY], sums[0, y], magnitudes[c], y, neighbours[0])
            _add_above(row[MAGNITUDE], sums[1, y], magnitudes[c], y, neighbours[1])
            _add_above(row[VALUE], sums[2, y], values[c], y, neighbours[2])
            _set_contexts_of_above(row, values[c, y - 1], errors[y - 1], total, y, c)
            if mode == ENCODE:
                words = with_room(words, interval[2], width)
            line = symbols[c, y - MARGIN], row, values[c, y], errors[y]
            interval, is_valid = _code_row(mode, words, interval, mixer, line, channel)
            if not is_valid:
                return words, False
            _set_magnitudes(magnitudes[c, y], values[c, y])
        _add_to_total(total, magnitudes[c])
    if mode == ENCODE:
        return terminate(words, interval), True
    return words, mode == COUNT or is_terminated(words, interval)


# As in the adaptive coder, the walk stands in one function, a row at a time, and its helpers are inlined.


@njit(nogil=True)
def _code_row(mode, words, interval, mixer, line, channel):
    """Walk the tree for every symbol of a row; return the interval, and whether all symbols are int32."""
    states, weights, shift, bases, indices, inputs = mixer
    symbols, row, values, errors = line
    c, (channel_mode, below, above), neighbours, starts = channel
    activity_left, activity_left2 = neighbours[0][0], neighbours[0][1]
    magnitude_left, magnitude_left2 = neighbours[1][0], neighbours[1][1]
    value_left, value_left2 = neighbours[2][0], neighbours[2][1]
    of_activity = starts[0] + c * NUM_CONTEXTS * NUM_DECISIONS
    of_total = starts[3] + c * NUM_CONTEXTS * NUM_DECISIONS
    of_value = starts[4] + c * (NUM_LEVELS // 4) * NUM_SLOTS
    first_weight, rounding = c * NUM_DECISIONS * NUM_INPUTS, 1 << (shift - 1)
    last, last_but_one = np.int64(0), np.int64(0)
    for x in range(MARGIN, MARGIN + symbols.size):
        size, size2 = abs(last), abs(last_but_one)
        activity = (row[ACTIVITY, x] + activity_left * size + activity_left2 * size2) >> ACTIVITY_FRACTION_BITS
        context = np.int64(CONTEXT_OF_ACTIVITY[min(activity, MAX_ACTIVITY)])
        expected = (row[MAGNITUDE, x] + magnitude_left * size + magnitude_left2 * size2) >> LEVEL_SHIFT
        level = np.int64(LEVEL[min(expected, MAX_LEVEL)])
        predicted = (row[VALUE, x] + value_left * last + value_left2 * last_but_one + HALF_VALUE) >> VALUE_SHIFT
        predicted = min(max(predicted, -MAX_VALUE), MAX_VALUE)
        energy = np.int64(ENERGY[min(row[ENERGY_ABOVE, x] + 2 * np.int64(errors[x - 1]), MAX_ENERGY)])
        signs = row[SIGNS_ABOVE, x] + 27 * _sign(last)
        bases[0] = of_activity + context * NUM_DECISIONS
        bases[1] = starts[1] + (context * NUM_LEVELS + level) * NUM_DECISIONS
        bases[2] = starts[2] + (signs * NUM_LEVELS + level) * NUM_DECISIONS
        bases[3] = of_total + row[TOTAL, x] * NUM_DECISIONS
        bases[4] = of_value + level // 4 * NUM_SLOTS
        bases[5] = starts[5] + (level // 2 * NUM_ENERGIES + energy) * NUM_SLOTS
        # The decoder learns from each decision what the encoder knows from the offset.
        offset = np.int64(0) if mode == DECODE else np.int64(symbols[x - MARGIN]) - channel_mode
        distance, magnitude, is_smaller, longest = abs(offset), np.int64(-1), False, above
        while magnitude <= longest:
            # Magnitude: how much is known already; -1 before the first decision, 0 before "is it smaller?".
            if magnitude < 0:
                decision, yes = np.int64(IS_MODE_NOT), offset != 0
            elif magnitude == 0:
                decision, yes = np.int64(IS_SMALLER), offset < 0
            else:
                decision, yes = np.int64(FURTHER_DECISION[magnitude]), distance > magnitude
            slot = _slot(magnitude, is_smaller, predicted)
            for i in range(NUM_MODELS):
                indices[i] = np.uint64(bases[i] + (slot if i >= FIRST_OF_VALUE else decision))
            if mode == COUNT:
                for i in range(NUM_MODELS):
                    states[indices[i]] += ONE << WORD_BITS if yes else ONE
            else:
                first = first_weight + decision * NUM_INPUTS
                probability = _mixed(states, indices, weights, first, inputs)
                split = (interval[1] >> SIXTEEN) * np.uint64(probability)
                if mode == DECODE:
                    yes = interval[0] < split
                interval, carries = narrow(mode, interval, split, yes)
                if carries or interval[1] < MIN_RANGE:
                    interval = renormalize(mode, words, interval, carries)
                error = (65536 if yes else 0) - probability
                for i in range(NUM_INPUTS):
                    weights[first + i] += (inputs[i] * error + rounding) >> shift
                for i in range(NUM_MODELS):
                    states[indices[i]] = _adapted(states[indices[i]], yes)
            if magnitude == 0:
                is_smaller, longest = yes, below if yes else above
            elif not yes:
                break
            magnitude += 1
        magnitude = max(magnitude, np.int64(0))
        if magnitude > longest:
            interval, escaped = code_escape(mode, words, interval, distance - longest)
            magnitude = longest + escaped
        symbol = channel_mode - magnitude if is_smaller else channel_mode + magnitude
        if symbol < MIN_SYMBOL or symbol > MAX_SYMBOL:
            return interval, False
        if mode == DECODE:
            symbols[x - MARGIN] = symbol
        last_but_one = last
        last = min(magnitude, np.int64(MAX_MAGNITUDE))
        if is_smaller:
            last = -last
        values[x] = last
        errors[x] = abs(16 * last - predicted)
    return interval, True


@njit(nogil=True, inline="always")
def _slot(magnitude, is_smaller, predicted):
    """Return which state of a value's the next decision has: by how far the predicted value is from what it asks."""
    if magnitude < 0:
        slot = np.int64(DISTANCE[min(abs(predicted), MAX_DISTANCE)])
    elif magnitude == 0:
        slot = NUM_DISTANCES + _signed_distance(predicted)
    else:
        onward = (-predicted if is_smaller else predicted) - 16 * magnitude
        slot = NUM_DISTANCES + NUM_SIGNED_DISTANCES * (1 if magnitude == 1 else 2) + _signed_distance(onward)
    return slot


@njit(nogil=True, inline="always")
def _mixed(states, indices, weights, first, inputs):
    """Set the inputs to the models' logits; return the probability that their weighted sum stands for."""
    logit = weights[first + NUM_MODELS] * LOGIT_UNITS
    for i in range(NUM_MODELS):
        inputs[i] = STRETCH[states[indices[i]] >> TO_STRETCH]
        logit += weights[first + i] * inputs[i]
    logit = min(max(logit >> 16, -MAX_LOGIT), MAX_LOGIT)
    return np.int64(SQUASH[logit + MAX_LOGIT])


@njit(nogil=True, inline="always")
def _adapted(state, bit):
    """Return a state after a decision."""
    estimate, count = state >> WORD_BITS, state & LOW_WORD
    rate = RATES[count]
    if bit:
        estimate += ((CERTAIN - estimate) * rate) >> SIXTEEN
    else:
        estimate -= (estimate * rate) >> SIXTEEN
    return estimate << WORD_BITS | min(count + ONE, LAST_RATE)


@njit(nogil=True, inline="always")
def _sign(value):
    """Return 0 for zero, 1 above, 2 below."""
    return np.int32(value > 0) + 2 * np.int32(value < 0)


@njit(nogil=True, inline="always")
def _signed_distance(distance):
    """Return the level of a distance in 1/16: the middle one for zero."""
    level = np.int64(DISTANCE[min(abs(distance), MAX_DISTANCE)])
    return NUM_DISTANCES - 1 + (level if distance >= 0 else -level)


@njit(nogil=True)
def _sum_sources(sums, planes, terms, c):
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
def _add_above(row, sums, plane, y, weights):
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
def _set_contexts_of_above(row, values_above, errors_above, total, y, c):
    """Set what contexts of a row do not depend on the symbols to the left."""
    size = values_above.size - 2 * MARGIN
    signs, energy, contexts = row[SIGNS_ABOVE, MARGIN:], row[ENERGY_ABOVE, MARGIN:], row[TOTAL, MARGIN:]
    left, middle, right = values_above[MARGIN - 1 :], values_above[MARGIN:], values_above[MARGIN + 1 :]
    for x in range(size):
        signs[x] = 9 * _sign(middle[x]) + 3 * _sign(left[x]) + _sign(right[x])
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


@njit(nogil=True)
def _set_magnitudes(magnitudes, values):
    """Set a row's magnitudes."""
    for x in range(values.size):
        magnitudes[x] = abs(values[x])


@njit(nogil=True)
def _add_to_total(total, magnitudes):
    """Add a channel's magnitudes to the total over all channels coded."""
    for y in range(total.shape[0]):
        for x in range(total.shape[1]):
            total[y, x] += min(np.int32(magnitudes[y, x]), np.int32(MAX_IN_TOTAL))
