"""The mixing entropy coder: the adaptive coder's decisions, each predicted by six models at once. Integers only.

Every model has states of its own, chosen by its own context; their logits are added up, weighted, and the weights learn
from each decision which models to trust (`bls.entropy.mixed.logits`). The same tree, interval and termination as in
`bls.entropy.adaptive.coder`, and again one walk for encoder, decoder and counting: from row to row here, within a row
in `bls.entropy.mixed.row`. Specified in docs/entropy-coding.md.

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
    WORD_BITS,
    check_payload,
    first_interval,
    is_terminated,
    terminate,
    to_payload,
    to_words,
    with_room,
    writable,
)
from bls.entropy.mixed.contexts import (
    ACTIVITY,
    MAGNITUDE,
    ROW_SIZE,
    VALUE,
    add_above,
    add_to_total,
    set_contexts_of_above,
    set_magnitudes,
    sum_sources,
)
from bls.entropy.mixed.logits import LOGIT_UNITS
from bls.entropy.mixed.model import CENTRE, FIRST_COUNT, NUM_INPUTS, NUM_MODELS, MixedModel, probability_shapes
from bls.entropy.mixed.row import code_row
from bls.entropy.tree import MARGIN, NUM_CONTEXTS, NUM_DECISIONS

COMPILED_IN = (
    "interval.py",
    "table.py",
    "tree.py",
    "adaptive/model.py",
    "mixed/logits.py",
    "mixed/model.py",
    "mixed/contexts.py",
    "mixed/row.py",
)
"""The other files that contribute to the machine code, and their hash (`bls.entropy.compiled`)."""
COMPILED_IN_SHA256 = "f79dd350080a90fd7f1da4a248b2627502d94cd1e8e0d9cac6c0e5c646973253"
IS_CACHED = hash_of_sources(COMPILED_IN) == COMPILED_IN_SHA256

LEARNING_SHIFT = 17
"""A mixer's weight moves by logit x error >> 17; fitting moves them more slowly."""


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
        sum_sources(sums[0], magnitudes, activity_terms, c)
        sum_sources(sums[1], magnitudes, magnitude_terms, c)
        sum_sources(sums[2], values, value_terms, c)
        errors[:] = 0
        neighbours = activity_terms[1][c], magnitude_terms[1][c], value_terms[1][c]
        chain = np.int64(chains[0][c]), np.int64(chains[1][c]), np.int64(chains[2][c])
        channel = c, chain, neighbours, starts
        for y in range(MARGIN, MARGIN + height):
            add_above(row[ACTIVITY], sums[0, y], magnitudes[c], y, neighbours[0])
            add_above(row[MAGNITUDE], sums[1, y], magnitudes[c], y, neighbours[1])
            add_above(row[VALUE], sums[2, y], values[c], y, neighbours[2])
            set_contexts_of_above(row, values[c, y - 1], errors[y - 1], total, y, c)
            if mode == ENCODE:
                words = with_room(words, interval[2], width)
            line = symbols[c, y - MARGIN], row, values[c, y], errors[y]
            interval, is_valid = code_row(mode, words, interval, mixer, line, channel)
            if not is_valid:
                return words, False
            set_magnitudes(magnitudes[c, y], values[c, y])
        add_to_total(total, magnitudes[c])
    if mode == ENCODE:
        return terminate(words, interval), True
    return words, mode == COUNT or is_terminated(words, interval)
