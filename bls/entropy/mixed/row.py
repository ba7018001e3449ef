"""The decisions of a row of symbols, each predicted by six models: one walk for encoder, decoder and counting.

A state is a model's estimate of the probability of yes, in 31 bits, and behind it a count of decisions in 32. What a
row's contexts take from above is `bls.entropy.mixed.contexts`; the interval is `bls.entropy.interval`'s.
"""

import numpy as np
from numba import njit

from bls.entropy.interval import (
    COUNT,
    DECODE,
    LOW_WORD,
    MIN_RANGE,
    ONE,
    WORD_BITS,
    code_escape,
    narrow,
    renormalize,
)
from bls.entropy.mixed.contexts import ACTIVITY, ENERGY_ABOVE, MAGNITUDE, MAX_ACTIVITY, SIGNS_ABOVE, TOTAL, VALUE, sign
from bls.entropy.mixed.logits import LOGIT_UNITS, MAX_LOGIT, NUM_RATES, RATES, SQUASH, STRETCH, STRETCH_BITS
from bls.entropy.mixed.model import (
    DISTANCE,
    ENERGY,
    LEVEL,
    NUM_DISTANCES,
    NUM_ENERGIES,
    NUM_INPUTS,
    NUM_LEVELS,
    NUM_MODELS,
    NUM_SIGNED_DISTANCES,
    NUM_SLOTS,
    SUM_FRACTION_BITS,
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

FIRST_OF_VALUE = 4
"""Models from this on have states by slot, those before by decision."""
SIXTEEN, LAST_RATE = np.uint64(16), np.uint64(NUM_RATES - 1)
TO_STRETCH = np.uint64(63 - STRETCH_BITS)
MAX_LEVEL, MAX_ENERGY, MAX_DISTANCE = len(LEVEL) - 1, len(ENERGY) - 1, len(DISTANCE) - 1
MAX_VALUE = 1023
"""Predicted values, in 1/16, reach to 64 on both sides."""
VALUE_SHIFT, LEVEL_SHIFT = SUM_FRACTION_BITS - 4, SUM_FRACTION_BITS - 6
HALF_VALUE = 1 << (VALUE_SHIFT - 1)

# As in the adaptive coder, the walk stands in one function, a row at a time, and its helpers are inlined.


@njit(nogil=True)
def code_row(mode, words, interval, mixer, line, channel):
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
        signs = row[SIGNS_ABOVE, x] + 27 * sign(last)
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
def _signed_distance(distance):
    """Return the level of a distance in 1/16: the middle one for zero."""
    level = np.int64(DISTANCE[min(abs(distance), MAX_DISTANCE)])
    return NUM_DISTANCES - 1 + (level if distance >= 0 else -level)
