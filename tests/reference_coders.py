"""The entropy coders once more, in Python's integers without bound: slow, and as docs/entropy-coding.md says.

Beside them models of all kinds for tests to code with.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bls.entropy.adaptive.model import NEIGHBOURS, NUM_SOURCES, AdaptiveModel
from bls.entropy.mixed.logits import SQUASH, STRETCH
from bls.entropy.mixed.model import (
    DISTANCE_STARTS,
    ENERGY_STARTS,
    FIRST_COUNT,
    LEVEL_STARTS,
    PLACES,
    MixedModel,
    probability_shapes,
)
from bls.entropy.table import ProbabilityTable
from bls.entropy.tree import CHAIN_GROUPS, CONTEXT_STARTS

INT32 = np.iinfo(np.int32)
Decide = Callable[[int, int, int, bool], None]


def table_of(*channels: tuple[int, list[int]]) -> ProbabilityTable:
    """Return the table of these channels: minimum and frequencies, the escape's last."""
    return ProbabilityTable(
        np.array([minimum for minimum, _ in channels], np.int32),
        np.array([len(frequencies) - 1 for _, frequencies in channels], np.int32),
        np.array([f for _, frequencies in channels for f in frequencies], np.uint32),
    )


def laplacian(*scales: float, radius: int = 60) -> ProbabilityTable:
    return ProbabilityTable.from_probabilities(
        np.stack([np.exp(-np.abs(np.arange(-radius, radius + 1)) / scale) for scale in scales]), -radius
    )


def with_random_integers(model: AdaptiveModel, *, seed: int, highest_weight: int = 800) -> AdaptiveModel:
    """Return a model with weights, sources, offsets and probabilities of all sizes."""
    rng = np.random.default_rng(seed)
    c = model.channels
    sources = rng.integers(0, np.maximum(np.arange(c), 1)[:, None], size=(c, NUM_SOURCES))
    source_weights = rng.integers(0, highest_weight, endpoint=True, size=(c, NUM_SOURCES))
    source_weights[0] = 0
    return replace(
        model,
        neighbour_weights=rng.integers(0, highest_weight, endpoint=True, size=(c, len(NEIGHBOURS))).astype(np.uint16),
        sources=sources.astype(np.uint16),
        source_weights=source_weights.astype(np.uint16),
        offset=rng.integers(0, 2000, size=c).astype(np.uint16),
        probabilities=rng.integers(1, 65536, size=model.probabilities.shape).astype(np.uint16),
    )


def filled(model: AdaptiveModel, weight: int, probability: int) -> AdaptiveModel:
    """Return a model in which all weights are one number, and all first probabilities another."""
    weights = np.full_like(model.source_weights, weight)
    weights[0] = 0
    return replace(
        model,
        neighbour_weights=np.full_like(model.neighbour_weights, weight),
        source_weights=weights,
        offset=np.full_like(model.offset, weight),
        probabilities=np.full_like(model.probabilities, probability),
    )


PLAIN = AdaptiveModel.from_table(laplacian(0.3, 1.0, 8.0))
ENDS = AdaptiveModel.from_table(
    table_of((INT32.min, [60000, 5535, 1]), (INT32.max - 1, [1, 65534, 1]), (INT32.max, [65535, 1]))
)
"""Modes at the ends of int32, chains of no length on one side or both."""
LONG = AdaptiveModel.from_table(table_of((-400, [1] * 400 + [64000] + [1] * 1135 + [1]), *[(0, [65535, 1])] * 2))
"""Chains of the greatest length, 255."""
MODELS = {
    "plain": PLAIN,
    "ends": ENDS,
    "long": LONG,
    "random": with_random_integers(PLAIN, seed=0),
    "random_ends": with_random_integers(ENDS, seed=1),
    "random_long": with_random_integers(LONG, seed=2),
    "heaviest": filled(PLAIN, 65535, 65535),
    "improbable": filled(ENDS, 1, 1),
}
"""Of three channels each."""
SYMBOLS = np.array([[[0, 1, -1, 0, 0, 9]], [[2, 0, -3, 0, 70, 1]], [[INT32.min, 4, -11, INT32.max, 0, 6]]], np.int32)

models = st.sampled_from(sorted(MODELS)).map(MODELS.__getitem__)
values = (
    st.integers(-4, 4)
    | st.integers(-300, 300)
    | st.integers(INT32.min, INT32.max)
    | st.sampled_from([INT32.min, INT32.min + 1, INT32.max, INT32.max - 1])
)
symbol_arrays = arrays(np.int32, st.tuples(st.just(3), st.integers(1, 4), st.integers(1, 5)), elements=values)
payloads = st.binary(max_size=40) | st.builds(
    bytes.__add__,
    st.sampled_from([b"\xff" * 8, b"\xff" * 9, b"\xff" * 12, b"\0" * 9, b"\x80", b"\x7f" + b"\xff" * 15]),
    st.binary(max_size=9),
)


class PythonEncoder:
    """The arithmetic coder of docs/entropy-coding.md on integers without bound: carries need no care."""

    def __init__(self, model: AdaptiveModel) -> None:
        first = model.probabilities.astype(int) << 15
        self.states = [[[[p, p] for p in context] for context in channel] for channel in first.tolist()]
        self.low, self.range, self.num_words, self.longest_carry = 0, 2**64 - 1, 0, 0

    def decide(self, c: int, context: int, decision: int, bit: bool) -> None:
        state = self.states[c][context][decision]
        self._narrow((self.range >> 16) * (sum(state) >> 16 | 1), bit)
        for estimate, rate in enumerate((4, 7)):
            if bit:
                state[estimate] += (2**31 - 1 - state[estimate]) >> rate
            else:
                state[estimate] -= state[estimate] >> rate

    def decide_evenly(self, bit: bool) -> None:
        self._narrow(self.range >> 1, bit)

    def payload(self) -> bytes:
        num_bits = 32 * self.num_words + 64
        rounded = (-(-self.low >> zeros) << zeros for zeros in range(num_bits, -1, -1))
        number = next(number for number in rounded if number < self.low + self.range)
        return number.to_bytes(num_bits // 8, "big").rstrip(b"\0")

    def _narrow(self, split: int, bit: bool) -> None:
        before = self.low >> 64
        if bit:
            self.range = split
        else:
            self.low, self.range = self.low + split, self.range - split
        if self.low >> 64 != before:
            ones = f"{before:b}"
            self.longest_carry = max(self.longest_carry, len(ones) - len(ones.rstrip("1")))
        if self.range < 2**32:
            self.low, self.range, self.num_words = self.low << 32, self.range << 32, self.num_words + 1


def walk(
    symbols: np.ndarray, model: AdaptiveModel, decide: Decide, decide_evenly: Callable[[bool], None] = lambda bit: None
) -> None:
    """Take the decisions of docs/entropy-coding.md, slowly: `decide(channel, context, decision, answer)`."""
    magnitudes = np.minimum(np.abs(symbols.astype(np.int64) - model.mode[:, None, None]), 255)

    def magnitude(c: int, y: int, x: int) -> int:
        is_inside = 0 <= y < symbols.shape[1] and 0 <= x < symbols.shape[2]
        return int(magnitudes[c, y, x]) if is_inside else 0

    for c, y, x in np.ndindex(symbols.shape):
        activity = int(model.offset[c])
        for weight, (dy, dx) in zip(model.neighbour_weights[c].tolist(), NEIGHBOURS, strict=True):
            activity += weight * magnitude(c, y + dy, x + dx)
        for weight, source in zip(model.source_weights[c].tolist(), model.sources[c].tolist(), strict=True):
            activity += weight * magnitude(source, y, x)
        context = sum(activity >> 8 >= start for start in CONTEXT_STARTS)
        offset = int(symbols[c, y, x]) - int(model.mode[c])
        decide(c, context, 0, offset != 0)
        if offset == 0:
            continue
        decide(c, context, 1, offset < 0)
        longest = int(model.below[c] if offset < 0 else model.above[c])
        for distance in range(1, min(abs(offset), longest) + 1):
            group = sum(distance >= start for start in CHAIN_GROUPS) - 1
            decide(c, context, 2 + group, abs(offset) > distance)
        if abs(offset) > longest:
            escaped = f"{abs(offset) - longest:b}"
            for bit in "1" * (len(escaped) - 1) + "0" + escaped[1:]:
                decide_evenly(bit == "1")


def encode_in_python(symbols: np.ndarray, model: AdaptiveModel) -> PythonEncoder:
    encoder = PythonEncoder(model)
    walk(symbols, model, encoder.decide, encoder.decide_evenly)
    return encoder


def draw(table: ProbabilityTable, shape: tuple[int, int], *, seed: int = 0) -> np.ndarray:
    """Return symbols of these probabilities; where the escape falls, the integer above the maximum."""
    rng = np.random.default_rng(seed)
    drawn = [rng.choice(len(f), size=shape, p=f / 65536) for f in map(table.channel, range(table.channels))]
    symbols: np.ndarray = np.stack(drawn) + table.minimum[:, None, None]
    return symbols.astype(np.int32)


class PythonMixer(PythonEncoder):
    """The mixing of docs/entropy-coding.md on integers without bound; also adds up the code length it believes in."""

    def __init__(self, adaptive: AdaptiveModel, model: MixedModel) -> None:
        super().__init__(adaptive)
        parts = [adaptive.probabilities, *(getattr(model, name) for name in probability_shapes(model.channels))]
        self.mixed_states = [{key: [int(p) << 15, FIRST_COUNT] for key, p in np.ndenumerate(part)} for part in parts]
        self.weights = model.mixer_weights.tolist()
        self.bits = 0.0

    def mix(self, c: int, decision: int, keys: list[tuple[int, int, int]], bit: bool) -> None:
        states = [states[key] for states, key in zip(self.mixed_states, keys, strict=True)]
        weights = self.weights[c][decision]
        logits = [*(int(STRETCH[estimate >> 19]) for estimate, _ in states), 256]
        logit = sum(weight * logit for weight, logit in zip(weights, logits, strict=True)) >> 16
        probability = int(SQUASH[min(max(logit, -2839), 2839) + 2839])
        self.bits -= np.log2((probability if bit else 65536 - probability) / 65536)
        self._narrow((self.range >> 16) * probability, bit)
        error = 65536 * bit - probability
        for i, value in enumerate(logits):
            weights[i] += (value * error + 65536) >> 17
        for state in states:
            rate = 131072 // (2 * state[1] + 3)
            if bit:
                state[0] += (2**31 - 1 - state[0]) * rate >> 16
            else:
                state[0] -= state[0] * rate >> 16
            state[1] = min(state[1] + 1, 255)


def level(starts: tuple[int, ...], value: int) -> int:
    return sum(value >= start for start in starts)


def signed(distance: int) -> int:
    return 11 + level(DISTANCE_STARTS, abs(distance)) * (1 if distance >= 0 else -1)


def encode_mixed_in_python(symbols: np.ndarray, adaptive: AdaptiveModel, model: MixedModel) -> PythonMixer:
    """Code symbols as docs/entropy-coding.md says, slowly."""
    coder = PythonMixer(adaptive, model)
    values = np.clip(symbols.astype(np.int64) - adaptive.mode[:, None, None], -255, 255)
    errors = np.zeros_like(values)

    def at(array: np.ndarray, c: int, y: int, x: int) -> int:
        is_inside = 0 <= y < symbols.shape[1] and 0 <= x < symbols.shape[2]
        return int(array[c, y, x]) if is_inside else 0

    for c, y, x in np.ndindex(symbols.shape):

        def total(name: str, known: np.ndarray, c: int = c, y: int = y, x: int = x) -> int:
            neighbours = getattr(model, f"{name}_neighbour_weights")[c].tolist()
            near: int = sum(
                w * at(known, c, y + dy, x + dx) for w, (dy, dx) in zip(neighbours, NEIGHBOURS, strict=True)
            )
            parts = (getattr(model, f"{name}_{part}")[c].tolist() for part in ("sources", "places", "weights"))
            near += sum(
                w * at(known, source, y + PLACES[place][0], x + PLACES[place][1])
                for source, place, w in zip(*parts, strict=True)
                if w
            )
            return near

        activity = int(adaptive.offset[c])
        for w, (dy, dx) in zip(adaptive.neighbour_weights[c].tolist(), NEIGHBOURS, strict=True):
            activity += w * abs(at(values, c, y + dy, x + dx))
        for w, source in zip(adaptive.source_weights[c].tolist(), adaptive.sources[c].tolist(), strict=True):
            activity += w * abs(at(values, source, y, x))
        context = level(CONTEXT_STARTS, activity >> 8)
        magnitude = int(model.magnitude_offset[c]) + total("magnitude", np.abs(values))
        magnitude_level = level(LEVEL_STARTS, magnitude >> 6)
        predicted = min(max((total("value", values) + 128) >> 8, -1023), 1023)
        errors[c, y, x] = abs(16 * int(values[c, y, x]) - predicted)
        energy = 2 * (at(errors, c, y, x - 1) + at(errors, c, y - 1, x))
        energy += at(errors, c, y - 1, x - 1) + at(errors, c, y - 1, x + 1)
        signs = 0
        for dy, dx in ((0, -1), (-1, 0), (-1, -1), (-1, 1)):
            signs = 3 * signs + int(np.sign(at(values, c, y + dy, x + dx))) % 3
        around = sum(
            n * min(abs(at(values, source, y + dy, x + dx)), 15)
            for source in range(c)
            for n, dy, dx in ((2, 0, 0), (1, -1, 0), (1, 1, 0), (1, 0, -1), (1, 0, 1))
        )
        around = level(CONTEXT_STARTS, 8 * around // (c + 4) + 2)
        by_decision = [(c, context), (context, magnitude_level), (signs, magnitude_level), (c, around)]
        by_slot = [(c, magnitude_level // 4), (magnitude_level // 2, level(ENERGY_STARTS, energy))]

        def decide(
            decision: int,
            slot: int,
            bit: bool,
            c: int = c,
            by_decision: list[tuple[int, int]] = by_decision,
            by_slot: list[tuple[int, int]] = by_slot,
        ) -> None:
            keys = [(*key, decision) for key in by_decision] + [(*key, slot) for key in by_slot]
            coder.mix(c, decision, keys, bit)

        offset = int(symbols[c, y, x]) - int(adaptive.mode[c])
        decide(0, level(DISTANCE_STARTS, abs(predicted)), offset != 0)
        if offset == 0:
            continue
        decide(1, 12 + signed(predicted), offset < 0)
        longest = int(adaptive.below[c] if offset < 0 else adaptive.above[c])
        towards = -predicted if offset < 0 else predicted
        for distance in range(1, min(abs(offset), longest) + 1):
            slot = (35 if distance == 1 else 58) + signed(towards - 16 * distance)
            decide(1 + level(CHAIN_GROUPS, distance), slot, abs(offset) > distance)
        if abs(offset) > longest:
            escaped = f"{abs(offset) - longest:b}"
            for bit in "1" * (len(escaped) - 1) + "0" + escaped[1:]:
                coder.decide_evenly(bit == "1")
                coder.bits += 1
    return coder
