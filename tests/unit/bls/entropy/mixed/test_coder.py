from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bls.bitstream import BitstreamError
from bls.entropy.adaptive import coder as arithmetic_coder
from bls.entropy.adaptive.model import NEIGHBOURS, AdaptiveModel
from bls.entropy.mixed import coder as mixed_coder
from bls.entropy.mixed.coder import MixedCoder
from bls.entropy.mixed.model import (
    FIRST_COUNT,
    NUM_TERMS,
    PLACES,
    MixedModel,
    probability_shapes,
)
from tests.reference_coders import (
    ENDS,
    INT32,
    MODELS,
    SYMBOLS,
    encode_mixed_in_python,
    payloads,
    symbol_arrays,
)
from tests.unit.bls.entropy.mixed.test_model import even_model


def random_model(seed: int, *, heaviest: int) -> MixedModel:
    """Return a model of three channels with terms, probabilities and weights of all sizes."""
    rng, arrays = np.random.default_rng(seed), even_model().to_arrays()
    for name in ("magnitude", "value"):
        lowest = 0 if name == "magnitude" else -heaviest
        weights = rng.integers(lowest, heaviest, endpoint=True, size=(3, NUM_TERMS))
        weights[0] = 0
        arrays[f"{name}_weights"] = weights.astype(np.int16)
        arrays[f"{name}_sources"] = rng.integers(0, np.array([[1], [1], [2]]), size=(3, NUM_TERMS)).astype(np.uint16)
        arrays[f"{name}_places"] = rng.integers(0, len(PLACES), size=(3, NUM_TERMS)).astype(np.uint16)
        neighbours = rng.integers(lowest, heaviest, endpoint=True, size=(3, len(NEIGHBOURS)))
        arrays[f"{name}_neighbour_weights"] = neighbours.astype(np.int16)
    arrays["magnitude_offset"] = rng.integers(0, 4 * heaviest, size=3).astype(np.int32)
    for name, shape in probability_shapes(3).items():
        arrays[name] = rng.integers(1, 65536, size=shape).astype(np.uint16)
    weights = arrays["mixer_weights"]
    arrays["mixer_weights"] = rng.integers(-(1 << 14), 1 << 15, size=weights.shape).astype(np.int32)
    return MixedModel.from_arrays(arrays)


EVEN = even_model()
EXTREME = replace(
    random_model(3, heaviest=32767),
    magnitude_offset=np.full(3, (1 << 30) - 1, np.int32),
    mixer_weights=np.full_like(EVEN.mixer_weights, INT32.max),
)
PAIRS: dict[str, tuple[AdaptiveModel, MixedModel]] = {
    "even": (MODELS["plain"], EVEN),
    "small": (MODELS["random"], random_model(0, heaviest=400)),
    "large": (MODELS["random_ends"], random_model(1, heaviest=5000)),
    "long": (MODELS["random_long"], random_model(2, heaviest=100)),
    "extreme": (MODELS["heaviest"], EXTREME),
    "ends": (ENDS, random_model(4, heaviest=300)),
}
pairs = st.sampled_from(sorted(PAIRS)).map(PAIRS.__getitem__)


def wild_symbols(adaptive: AdaptiveModel, shape: tuple[int, int], *, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    offsets = rng.laplace(scale=rng.choice([0.3, 3.0, 200.0], size=(3, *shape))).round()
    symbols: np.ndarray = np.clip(offsets + adaptive.mode[:, None, None], INT32.min, INT32.max)
    return symbols.astype(np.int32)


def assert_canonical(payload: bytes, shape: tuple[int, int, int], pair: tuple[AdaptiveModel, MixedModel]) -> None:
    """Assert that a payload is rejected, or the one that its symbols are coded to."""
    try:
        symbols = MixedCoder(*pair).decode(payload, shape)
    except BitstreamError:
        return
    assert MixedCoder(*pair).encode(symbols) == payload


@given(symbol_arrays, pairs)
@example(SYMBOLS, PAIRS["large"])
@example(SYMBOLS, PAIRS["extreme"])
def test_decode_inverts_encode(symbols: np.ndarray, pair: tuple[AdaptiveModel, MixedModel]) -> None:
    decoded = MixedCoder(*pair).decode(MixedCoder(*pair).encode(symbols), symbols.shape)
    assert decoded.dtype == np.int32
    assert np.array_equal(decoded, symbols)


@settings(max_examples=30)
@given(symbol_arrays, pairs)
@example(SYMBOLS, PAIRS["long"])
@example(SYMBOLS, PAIRS["extreme"])
def test_payload_is_that_of_exact_integers(symbols: np.ndarray, pair: tuple[AdaptiveModel, MixedModel]) -> None:
    assert MixedCoder(*pair).encode(symbols) == encode_mixed_in_python(symbols, *pair).payload()


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("shape", [(1, 40), (40, 1), (9, 13)], ids=str)
def test_payload_of_many_words_is_that_of_exact_integers(name: str, shape: tuple[int, int]) -> None:
    symbols = wild_symbols(PAIRS[name][0], shape)
    payload = MixedCoder(*PAIRS[name]).encode(symbols)
    assert payload == encode_mixed_in_python(symbols, *PAIRS[name]).payload()
    assert np.array_equal(MixedCoder(*PAIRS[name]).decode(payload, symbols.shape), symbols)


@pytest.mark.parametrize("name", PAIRS)
def test_coded_length_is_the_sum_of_the_models_own_code_lengths(name: str) -> None:
    symbols = wild_symbols(PAIRS[name][0], (12, 20))
    coder = encode_mixed_in_python(symbols, *PAIRS[name])
    coded_bits = 8 * len(MixedCoder(*PAIRS[name]).encode(symbols))
    # What rounding drops from a yes goes to the no, so an unlikely model may gain by it.
    assert abs(coded_bits - coder.bits) < 0.001 * coder.bits + 9


def test_counts_are_of_the_states_that_coding_adapts() -> None:
    adaptive, model = PAIRS["small"]
    symbols = wild_symbols(adaptive, (7, 9))
    counts = np.zeros(mixed_coder.first_states(3)[-1], np.uint64)
    for _ in range(2):
        mixed_coder.count_decisions(symbols, adaptive, model, counts)
    coder = encode_mixed_in_python(symbols, adaptive, model)
    taken = (counts >> np.uint64(32)) + (counts & np.uint64(0xFFFF_FFFF))
    expected = [count - FIRST_COUNT for states in coder.mixed_states for _, count in states.values()]
    assert np.array_equal(np.minimum(taken, 2 * (255 - FIRST_COUNT)), 2 * np.array(expected))
    # The first model shares its states with the adaptive coder.
    by_activity = np.zeros(adaptive.probabilities.shape, np.uint64)
    for _ in range(2):
        arithmetic_coder.count_decisions(symbols, adaptive, by_activity)
    assert np.array_equal(counts[: by_activity.size], by_activity.ravel())


@given(payloads, st.tuples(st.just(3), st.integers(1, 3), st.integers(1, 12)), pairs)
@example(b"", (3, 1, 1), PAIRS["even"])
@example(b"", (3, 3, 12), PAIRS["extreme"])
def test_any_bytes_decode_to_what_is_coded_to_them_or_raise(
    payload: bytes, shape: tuple[int, int, int], pair: tuple[AdaptiveModel, MixedModel]
) -> None:
    assert_canonical(payload, shape, pair)


def test_truncated_or_flipped_payload_never_gives_the_symbols() -> None:
    payload = MixedCoder(*PAIRS["small"]).encode(SYMBOLS)
    number, num_bytes = int.from_bytes(payload, "big"), len(payload)
    flipped = [(number ^ 1 << bit).to_bytes(num_bytes, "big") for bit in range(8 * num_bytes)]
    for damaged in [*flipped, *(payload[:length] for length in range(num_bytes))]:
        assert_canonical(damaged, SYMBOLS.shape, PAIRS["small"])


@pytest.mark.parametrize("tail", [b"\0", b"\0\0\0\0", b"\x01", b"\xff" * 4, bytes(40) + b"\x01"], ids=len)
def test_appended_bytes_are_detected(tail: bytes) -> None:
    payload = MixedCoder(*PAIRS["small"]).encode(SYMBOLS)
    with pytest.raises(BitstreamError, match="bytes that no 3x1x6 symbols are coded to: it is truncated or damaged"):
        MixedCoder(*PAIRS["small"]).decode(payload + tail, SYMBOLS.shape)


def test_number_outside_the_first_interval_is_rejected() -> None:
    with pytest.raises(BitstreamError):
        MixedCoder(*PAIRS["small"]).decode(b"\xff" * 8 + b"\x35", (3, 4, 4))


def test_one_model_of_any_layout_codes_alike_any_number_of_times() -> None:
    adaptive, model = PAIRS["small"]
    expected = MixedCoder(adaptive, model).encode(SYMBOLS)
    stored = {f.name: np.array(getattr(model, f.name), order="F") for f in fields(model)}
    for array in stored.values():
        array.flags.writeable = False
    for _ in range(2):
        assert MixedCoder(adaptive, MixedModel.from_arrays(stored)).encode(SYMBOLS) == expected


def test_threads_code_alike() -> None:
    pair = PAIRS["small"]
    symbols = [wild_symbols(pair[0], (20, 30), seed=seed) for seed in range(8)]
    expected = [MixedCoder(*pair).encode(image) for image in symbols]
    with ThreadPoolExecutor(4) as pool:
        coded = list(pool.map(lambda image: MixedCoder(*pair).encode(image), symbols))
        decoded = list(pool.map(lambda payload: MixedCoder(*pair).decode(payload, symbols[0].shape), coded))
    assert coded == expected
    assert all(np.array_equal(a, b) for a, b in zip(decoded, symbols, strict=True))
