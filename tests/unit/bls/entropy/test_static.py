import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bls.bitstream import BitstreamError
from bls.entropy.static import StaticCoder
from bls.entropy.table import ProbabilityTable

DOCUMENT = Path(__file__).parents[4] / "docs" / "entropy-coding.md"
INT32 = np.iinfo(np.int32)


def table_of(*channels: tuple[int, list[int]]) -> ProbabilityTable:
    """Return the table of these channels: minimum and frequencies, the escape's last."""
    return ProbabilityTable(
        np.array([minimum for minimum, _ in channels], np.int32),
        np.array([len(frequencies) - 1 for _, frequencies in channels], np.int32),
        np.array([f for _, frequencies in channels for f in frequencies], np.uint32),
    )


def laplacian(scales: Iterable[float], radius: int = 60) -> ProbabilityTable:
    return ProbabilityTable.from_probabilities(
        np.stack([np.exp(-np.abs(np.arange(-radius, radius + 1)) / scale) for scale in scales]), -radius
    )


TABLES = {
    "laplacian": laplacian([0.1, 1.0, 8.0]),
    "int32_ends": table_of((INT32.min, [60000, 5535, 1]), (INT32.max - 1, [1, 65534, 1]), (INT32.max, [65535, 1])),
    "improbable": table_of((0, [1, 65535]), (-3, [1, 1, 1, 1, 65531, 1]), (-40000, [1] * 65534 + [1, 1])),
}
"""Of three channels each."""
SYMBOLS = np.array([[[0, 1, -1, 0, 0, 9]], [[2, 0, -3, 0, 70, 1]], [[INT32.min, 4, -11, INT32.max, 0, 6]]], np.int32)
PAYLOAD = StaticCoder(TABLES["laplacian"]).encode(SYMBOLS)

tables = st.sampled_from(sorted(TABLES)).map(TABLES.__getitem__)
values = st.integers(-4, 4) | st.integers(INT32.min, INT32.max) | st.sampled_from([INT32.min, INT32.max, INT32.max - 1])
symbol_arrays = arrays(np.int32, st.tuples(st.just(3), st.integers(1, 4), st.integers(1, 5)), elements=values)
payloads = st.binary(max_size=40) | st.builds(
    bytes.__add__, st.sampled_from([b"\xff" * 8, b"\xff" * 12, b"\0" * 9, b"\x80"]), st.binary(max_size=9)
)


class PythonEncoder:
    """The range coder of docs/entropy-coding.md on integers without bound: carries need no care."""

    def __init__(self) -> None:
        self.low, self.range, self.num_words, self.is_empty = 0, 2**64 - 1, 0, True

    def put(self, cumulative: int, frequency: int) -> None:
        """Code what has `frequency` of 2**24, after what has `cumulative`."""
        self.is_empty = False
        scale = self.range >> 24
        self.low, self.range = self.low + scale * cumulative, scale * frequency
        if self.range < 2**32:
            self.low, self.range, self.num_words = self.low << 32, self.range << 32, self.num_words + 1

    def put_entry(self, entry: int, frequencies: list[int]) -> None:
        self.put(sum(frequencies[:entry]), frequencies[entry])

    def payload(self) -> bytes:
        words = b"" if self.is_empty else (-(-self.low >> 32)).to_bytes(4 * self.num_words + 4, "big")
        return words.rstrip(b"\0")


def encode_in_python(symbols: np.ndarray, table: ProbabilityTable) -> bytes:
    encoder, escaped = PythonEncoder(), []
    for c, plane in enumerate(symbols):
        frequencies = [256 * int(f) for f in table.channel(c)]
        minimum, escape = int(table.minimum[c]), len(frequencies) - 1
        for index in (value - minimum for value in plane.ravel().tolist()):
            is_entry = 0 <= index < escape
            if not is_entry:
                escaped.append(-2 * index if index < 0 else 2 * (index - escape) + 1)
            encoder.put_entry(index if is_entry else escape, frequencies)
    uniform = [2 * (128 // 18 + (n < 128 % 18)) for n in range(18)]
    prefixes = [2**23 >> n for n in range(16)] + uniform
    for value in escaped:
        encoder.put_entry(value.bit_length() - 1, prefixes)
    for shift in (0, 16, 32):
        for value in escaped:
            size = 1 << min(max(value.bit_length() - 1 - shift, 0), 16)
            if size > 1:
                suffix = value ^ 1 << value.bit_length() - 1
                encoder.put((suffix >> shift) % size * (2**24 // size), 2**24 // size)
    return encoder.payload()


@given(symbol_arrays, tables)
@example(SYMBOLS, TABLES["int32_ends"])
@example(SYMBOLS, TABLES["improbable"])
def test_decode_inverts_encode(symbols: np.ndarray, table: ProbabilityTable) -> None:
    decoded = StaticCoder(table).decode(StaticCoder(table).encode(symbols), symbols.shape)
    assert decoded.dtype == np.int32
    assert np.array_equal(decoded, symbols)


@given(symbol_arrays, tables)
@example(SYMBOLS, TABLES["improbable"])
def test_payload_is_that_of_exact_integers(symbols: np.ndarray, table: ProbabilityTable) -> None:
    assert StaticCoder(table).encode(symbols) == encode_in_python(symbols, table)


def test_payload_of_many_words_is_that_of_exact_integers() -> None:
    symbols = np.random.default_rng(0).laplace(scale=9, size=(3, 16, 24)).round().astype(np.int32)
    assert StaticCoder(TABLES["laplacian"]).encode(symbols) == encode_in_python(symbols, TABLES["laplacian"])


def test_document_example_is_what_the_code_writes() -> None:
    text = DOCUMENT.read_text()
    row = re.search(r"^symbols +(.*)$", text, re.MULTILINE)
    payload = re.search(r"^static payload +([0-9a-f ]+)$", text, re.MULTILINE)
    frequencies = re.search(r"^frequencies +(.*)$", text, re.MULTILINE)
    assert row and payload and frequencies
    table = table_of((-2, [int(f) for f in re.findall(r"\d+", frequencies[1])]))
    symbols = np.array([[[int(value) for value in row[1].split()]]], np.int32)
    assert StaticCoder(table).encode(symbols) == bytes.fromhex(payload[1])


@given(payloads, st.tuples(st.just(3), st.integers(1, 3), st.integers(1, 3)), tables)
@example(b"", (3, 1, 1), TABLES["laplacian"])
@example(b"\xff" * 64, (3, 3, 3), TABLES["improbable"])
def test_any_bytes_decode_to_what_is_coded_to_them_or_raise(
    payload: bytes, shape: tuple[int, int, int], table: ProbabilityTable
) -> None:
    try:
        symbols = StaticCoder(table).decode(payload, shape)
    except BitstreamError:
        return
    assert StaticCoder(table).encode(symbols) == payload


def test_truncated_or_flipped_payload_never_gives_the_symbols() -> None:
    flipped = [
        (int.from_bytes(PAYLOAD, "big") ^ 1 << bit).to_bytes(len(PAYLOAD), "big") for bit in range(8 * len(PAYLOAD))
    ]
    for damaged in [*flipped, *(PAYLOAD[:length] for length in range(len(PAYLOAD)))]:
        try:
            symbols = StaticCoder(TABLES["laplacian"]).decode(damaged, SYMBOLS.shape)
        except BitstreamError:
            continue
        assert not np.array_equal(symbols, SYMBOLS)
        assert StaticCoder(TABLES["laplacian"]).encode(symbols) == damaged


@pytest.mark.parametrize("tail", [b"\0", b"\0\0\0\0", b"\x01", b"\xff" * 4, bytes(40) + b"\x01"], ids=len)
def test_appended_bytes_are_detected(tail: bytes) -> None:
    with pytest.raises(BitstreamError, match="bytes that no 3x1x6 symbols are coded to: it is truncated or damaged"):
        StaticCoder(TABLES["laplacian"]).decode(PAYLOAD + tail, SYMBOLS.shape)


def test_data_beyond_the_last_entry_is_damaged() -> None:
    with pytest.raises(BitstreamError, match=r"payload is damaged \(.*\): fetch it again"):
        StaticCoder(TABLES["laplacian"]).decode(b"\xff" * 64, SYMBOLS.shape)


def test_escape_beyond_int32_is_damaged() -> None:
    encoder = PythonEncoder()
    encoder.put(2**24 - 256, 256)  # the escape of (0, [65535, 1])
    encoder.put(2**24 - 14, 14)  # the longest prefix: 33 suffix bits
    with pytest.raises(BitstreamError, match="symbol beyond int32: it is damaged, fetch it again"):
        StaticCoder(table_of((0, [65535, 1]))).decode(encoder.payload(), (1, 1, 1))


def test_first_entries_alone_need_no_bytes() -> None:
    symbols = np.broadcast_to(TABLES["laplacian"].minimum[:, None, None], (3, 7, 5)).astype(np.int32)
    assert StaticCoder(TABLES["laplacian"]).encode(symbols) == b""
    assert np.array_equal(StaticCoder(TABLES["laplacian"]).decode(b"", (3, 7, 5)), symbols)


def test_symbols_of_any_layout_are_coded_alike() -> None:
    strided = np.asfortranarray(SYMBOLS)
    strided.flags.writeable = False
    assert StaticCoder(TABLES["laplacian"]).encode(strided) == PAYLOAD


@pytest.mark.parametrize("scale", [0.1, 0.5, 2.0, 20.0])
def test_coded_bits_are_the_ideal_code_length(scale: float) -> None:
    table = laplacian([scale], radius=1 + int(10 * scale))
    rng = np.random.default_rng(0)
    drawn = rng.choice(int(table.num_symbols[0]) + 1, size=(1, 200, 250), p=table.channel(0) / 65536)
    symbols = (drawn + table.minimum[0]).astype(np.int32)  # an escape is the integer above the maximum
    coded_bits = 8 * len(StaticCoder(table).encode(symbols))
    assert abs(coded_bits - table.code_length_bits(symbols)) < 0.005 * coded_bits + 64


def test_threads_code_alike() -> None:
    symbols = np.random.default_rng(1).laplace(scale=2, size=(8, 3, 20, 30)).round().astype(np.int32)
    expected = [StaticCoder(TABLES["laplacian"]).encode(image) for image in symbols]
    with ThreadPoolExecutor(4) as pool:
        coded = list(pool.map(lambda image: StaticCoder(TABLES["laplacian"]).encode(image), symbols))
        decoded = list(pool.map(lambda p: StaticCoder(TABLES["laplacian"]).decode(p, symbols[0].shape), coded))
    assert coded == expected
    assert np.array_equal(np.stack(decoded), symbols)
