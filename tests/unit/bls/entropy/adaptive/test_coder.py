import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bls.bitstream import BitstreamError
from bls.entropy.adaptive import coder as arithmetic_coder
from bls.entropy.adaptive.coder import AdaptiveCoder
from bls.entropy.adaptive.fitting import fit_adaptive_model
from bls.entropy.adaptive.model import AdaptiveModel
from bls.entropy.interval import MAX_WORDS_PER_SYMBOL
from bls.entropy.table import ProbabilityTable
from bls.entropy.tree import IS_SMALLER
from tests.reference_coders import (
    ENDS,
    LONG,
    MODELS,
    PLAIN,
    SYMBOLS,
    draw,
    encode_in_python,
    laplacian,
    models,
    payloads,
    symbol_arrays,
    table_of,
    walk,
    with_random_integers,
)

INT32 = np.iinfo(np.int32)
DOCUMENT = Path(__file__).parents[5] / "docs" / "entropy-coding.md"


def assert_canonical(payload: bytes, shape: tuple[int, int, int], model: AdaptiveModel) -> None:
    """Assert that a payload is rejected, or the one that its symbols are coded to."""
    try:
        symbols = AdaptiveCoder(model).decode(payload, shape)
    except BitstreamError:
        return
    assert AdaptiveCoder(model).encode(symbols) == payload


@given(symbol_arrays, models)
@example(SYMBOLS, ENDS)
@example(SYMBOLS, MODELS["heaviest"])
@example(SYMBOLS, MODELS["improbable"])
def test_decode_inverts_encode(symbols: np.ndarray, model: AdaptiveModel) -> None:
    decoded = AdaptiveCoder(model).decode(AdaptiveCoder(model).encode(symbols), symbols.shape)
    assert decoded.dtype == np.int32
    assert np.array_equal(decoded, symbols)


@given(symbol_arrays, models)
@example(SYMBOLS, ENDS)
@example(SYMBOLS, MODELS["random_long"])
def test_payload_is_that_of_exact_integers(symbols: np.ndarray, model: AdaptiveModel) -> None:
    assert AdaptiveCoder(model).encode(symbols) == encode_in_python(symbols, model).payload()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("shape", [(1, 40), (40, 1), (9, 13)], ids=str)
def test_payload_of_many_words_is_that_of_exact_integers(name: str, shape: tuple[int, int]) -> None:
    model, rng = MODELS[name], np.random.default_rng(0)
    offsets = rng.laplace(scale=rng.choice([0.3, 3.0, 200.0], size=(3, *shape))).round()
    symbols = np.clip(offsets + model.mode[:, None, None], INT32.min, INT32.max).astype(np.int32)
    payload = AdaptiveCoder(model).encode(symbols)
    assert payload == encode_in_python(symbols, model).payload()
    assert np.array_equal(AdaptiveCoder(model).decode(payload, symbols.shape), symbols)


@pytest.mark.parametrize("name", MODELS)
def test_counts_are_those_of_a_slow_walk(name: str) -> None:
    model, rng = MODELS[name], np.random.default_rng(0)
    offsets = rng.laplace(scale=rng.choice([0.3, 3.0, 200.0], size=(3, 7, 9))).round()
    symbols = np.clip(offsets + model.mode[:, None, None], INT32.min, INT32.max).astype(np.int32)
    symbols[:, 0, :2] = INT32.min, INT32.max
    expected = np.zeros(model.probabilities.shape, np.uint64)

    def count(c: int, context: int, decision: int, bit: bool) -> None:
        expected[c, context, decision] += np.uint64(2**32 if bit else 1)

    counts = np.zeros_like(expected)
    for _ in range(2):
        walk(symbols, model, count)
        arithmetic_coder.count_decisions(symbols, model, counts)
    assert np.array_equal(counts, expected)


def test_document_example_is_what_the_code_writes() -> None:
    text = DOCUMENT.read_text()
    row = re.search(r"^symbols +(.*)$", text, re.MULTILINE)
    payload = re.search(r"^adaptive payload +([0-9a-f ]+)$", text, re.MULTILINE)
    frequencies = re.search(r"^frequencies +(.*)$", text, re.MULTILINE)
    assert row and payload and frequencies
    model = AdaptiveModel.from_table(table_of((-2, [int(f) for f in re.findall(r"\d+", frequencies[1])])))
    symbols = np.array([[[int(value) for value in row[1].split()]]], np.int32)
    assert AdaptiveCoder(model).encode(symbols) == bytes.fromhex(payload[1])


@given(payloads, st.tuples(st.just(3), st.integers(1, 3), st.integers(1, 12)), models)
@example(b"", (3, 1, 1), PLAIN)
def test_any_bytes_decode_to_what_is_coded_to_them_or_raise(
    payload: bytes, shape: tuple[int, int, int], model: AdaptiveModel
) -> None:
    assert_canonical(payload, shape, model)


def test_number_outside_the_first_interval_is_rejected() -> None:
    # 2**64 - 1, then the words whose window would wrap around to inside of the interval.
    model = AdaptiveModel.from_table(laplacian(*[1.0] * 40))
    rng = np.random.default_rng(0)
    for _ in range(300):
        payload = b"\xff" * rng.integers(8, 13) + rng.bytes(8)
        with pytest.raises(BitstreamError, match="bytes that no 40x4x4 symbols are coded to"):
            AdaptiveCoder(model).decode(payload, (40, 4, 4))


def test_truncated_or_flipped_payload_never_gives_the_symbols() -> None:
    payload = AdaptiveCoder(MODELS["random"]).encode(SYMBOLS)
    number, num_bytes = int.from_bytes(payload, "big"), len(payload)
    flipped = [(number ^ 1 << bit).to_bytes(num_bytes, "big") for bit in range(8 * num_bytes)]
    for damaged in [*flipped, *(payload[:length] for length in range(num_bytes))]:
        assert_canonical(damaged, SYMBOLS.shape, MODELS["random"])


@pytest.mark.parametrize("tail", [b"\0", b"\0\0\0\0", b"\x01", b"\xff" * 4, bytes(40) + b"\x01"], ids=len)
def test_appended_bytes_are_detected(tail: bytes) -> None:
    payload = AdaptiveCoder(PLAIN).encode(SYMBOLS)
    with pytest.raises(BitstreamError, match="bytes that no 3x1x6 symbols are coded to: it is truncated or damaged"):
        AdaptiveCoder(PLAIN).decode(payload + tail, SYMBOLS.shape)


def test_yes_for_ever_is_damaged() -> None:
    # A payload of zeros answers yes to all: no symbol of int32 is that far.
    with pytest.raises(BitstreamError):
        AdaptiveCoder(LONG).decode(b"", (3, 2, 2))


@pytest.mark.parametrize("num_zeros", [0, 1, 4, 200])
def test_carry_runs_through_all_words_before_it(num_zeros: int) -> None:
    # The symbols that 2**-1 codes: the interval's low is 0.0111... for as long as they last.
    table = laplacian(0.8, 2.0, 5.0)
    model = with_random_integers(AdaptiveModel.from_table(table), seed=3, highest_weight=200)
    payload = b"\x80" + b"\0" * num_zeros + b"\x35" * (num_zeros > 0)
    symbols = AdaptiveCoder(model).decode(payload, (3, 16, 20))
    reference = encode_in_python(symbols, model)
    assert AdaptiveCoder(model).encode(symbols) == reference.payload() == payload
    if num_zeros == 0:
        assert reference.low >> 64 == 2 ** (32 * reference.num_words - 1) - 1  # all words are to be carried through
        assert reference.num_words > 50
    else:
        assert reference.longest_carry >= 8 * num_zeros - 64


def test_words_grow_with_what_they_hold() -> None:
    rng = np.random.default_rng(0)
    symbols = rng.integers(INT32.min, INT32.max, size=(3, 50, 60), dtype=np.int32)
    payload = AdaptiveCoder(LONG).encode(symbols)
    assert len(payload) > 3 * 50 * 60 * 7
    assert np.array_equal(AdaptiveCoder(LONG).decode(payload, symbols.shape), symbols)


def test_dearest_symbol_fits_where_room_is_made_for_it() -> None:
    # Every answer is the improbable one, and each state is met for the first time or has hardly adapted.
    probabilities = np.full_like(LONG.probabilities, 1)
    probabilities[:, :, IS_SMALLER] = 65535
    symbols = np.full((3, 1, 1), INT32.max, np.int32)
    encoder = encode_in_python(symbols, replace(LONG, probabilities=probabilities))
    assert 3 * MAX_WORDS_PER_SYMBOL > encoder.num_words > 20


def test_symbols_and_models_of_any_layout_are_coded_alike() -> None:
    expected = AdaptiveCoder(MODELS["random"]).encode(SYMBOLS)
    for order in ("C", "F"):
        read_only = np.array(SYMBOLS, order=order)
        stored = {name: np.array(array, order=order) for name, array in MODELS["random"].to_arrays().items()}
        for array in (read_only, *stored.values()):
            array.flags.writeable = False
        assert AdaptiveCoder(AdaptiveModel.from_arrays(stored)).encode(read_only) == expected


def test_one_model_codes_any_number_of_times() -> None:
    before = {name: array.copy() for name, array in MODELS["random"].to_arrays().items()}
    first, second = (AdaptiveCoder(MODELS["random"]).encode(SYMBOLS) for _ in range(2))
    assert first == second
    assert all(np.array_equal(array, before[name]) for name, array in MODELS["random"].to_arrays().items())


def test_threads_code_alike() -> None:
    model = MODELS["random"]
    symbols = np.random.default_rng(1).laplace(scale=2, size=(16, 3, 40, 60)).round().astype(np.int32)
    expected = [AdaptiveCoder(model).encode(image) for image in symbols]
    with ThreadPoolExecutor(4) as pool:
        coded = list(pool.map(lambda image: AdaptiveCoder(model).encode(image), symbols))
        decoded = list(pool.map(lambda payload: AdaptiveCoder(model).decode(payload, symbols[0].shape), coded))
    assert coded == expected
    assert np.array_equal(np.stack(decoded), symbols)


@pytest.mark.parametrize("scale", [0.15, 0.5, 2.0, 10.0])
def test_adaptation_costs_little_where_there_is_nothing_to_learn(scale: float) -> None:
    table = laplacian(scale, radius=1 + int(10 * scale))
    symbols = draw(table, (150, 200))
    coded_bits = 8 * len(AdaptiveCoder(AdaptiveModel.from_table(table)).encode(symbols))
    ideal_bits = table.code_length_bits(symbols)
    assert 0.99 * ideal_bits < coded_bits < 1.03 * ideal_bits + 0.01 * symbols.size


def test_contexts_gain_where_magnitudes_cluster() -> None:
    def image(seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        coarse = np.exp(1.5 * rng.normal(size=(3, 8, 8)))
        return rng.laplace(scale=np.kron(coarse, np.ones((1, 10, 10)))).round().astype(np.int32)

    training, other = [image(seed) for seed in range(6)], image(6)
    low, high = min(i.min() for i in training), max(i.max() for i in training)
    counts = [
        np.bincount(np.concatenate([i[c].ravel() for i in training]) - low, minlength=high - low + 1) for c in range(3)
    ]
    table = ProbabilityTable.from_probabilities(np.stack(counts).astype(float), int(low))
    adaptive_bits = 8 * len(AdaptiveCoder(fit_adaptive_model(table, training)).encode(other))
    assert adaptive_bits < 0.9 * table.code_length_bits(other)
