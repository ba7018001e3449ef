import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bls.entropy.table import TOTAL, ProbabilityTable

INT32 = np.iinfo(np.int32)
SMALL = ProbabilityTable.from_probabilities(np.array([[0.125, 0.25, 0.5, 0.125]]), -1)
"""Symbols -1 to 2."""

probabilities = arrays(
    np.float64,
    st.tuples(st.integers(1, 4), st.integers(1, 40)),
    elements=st.sampled_from([0.0, 1e-9, 1e-5, 0.01]) | st.floats(0, 1),
)
int32s = st.integers(INT32.min, INT32.max)


def table_arrays() -> dict[str, np.ndarray]:
    return {name: array.copy() for name, array in SMALL.to_arrays().items()}


@given(probabilities, st.integers(-100, 100))
@example(np.array([[1.0]]), 0)
@example(np.array([[1e-300, 0.0, 1e-300]]), 0)
def test_frequencies_sum_to_total_and_none_is_zero(p: np.ndarray, minimum: int) -> None:
    if not (p.sum(1) > 0).all():
        with pytest.raises(ValueError, match="has no probabilities: fit its density first"):
            ProbabilityTable.from_probabilities(p, minimum)
        return
    table = ProbabilityTable.from_probabilities(p, minimum)
    assert table.channels == len(p)
    for c in range(table.channels):
        frequencies = table.channel(c)
        assert frequencies.sum(dtype=np.int64) == TOTAL
        assert frequencies.min() >= 1
        assert len(frequencies) == table.num_symbols[c] + 1
        assert minimum <= table.minimum[c] <= table.mode[c] <= table.maximum[c] < minimum + p.shape[1]


def test_symbols_keep_their_places() -> None:
    assert SMALL.minimum.tolist() == [-1]
    assert SMALL.maximum.tolist() == [2]
    assert SMALL.mode.tolist() == [1]
    # The escape takes its one from where it costs least.
    assert SMALL.channel(0).tolist() == [8192, 16384, 32767, 8192, 1]


def test_improbable_ends_escape_and_gaps_do_not() -> None:
    table = ProbabilityTable.from_probabilities(np.array([[1e-7, 0.5, 0.0, 0.5, 1e-7]]), -2)
    assert table.minimum.tolist() == [-1]
    assert table.channel(0).tolist() == [32767, 1, 32767, 1]


def test_what_is_missing_from_one_is_the_escape() -> None:
    assert ProbabilityTable.from_probabilities(np.array([[0.25, 0.25]]), 0).channel(0).tolist() == [16384, 16384, 32768]


def test_minimum_may_differ_between_channels() -> None:
    p = np.array([[0.5, 0.5], [0.5, 0.5]])
    assert ProbabilityTable.from_probabilities(p, np.array([-7, 9])).minimum.tolist() == [-7, 9]


@pytest.mark.parametrize("scale", [0.05, 0.3, 1.0, 10.0, 100.0])
def test_rounding_costs_less_than_a_thousandth_of_a_bit(scale: float) -> None:
    p = np.exp(-np.abs(np.arange(-1000, 1001)) / scale)
    p /= p.sum()
    table = ProbabilityTable.from_probabilities(p[None], -1000)
    first = int(table.minimum[0]) + 1000
    kept = p[first : first + int(table.num_symbols[0])]
    divergence_bits = (kept * np.log2(kept / (table.channel(0)[:-1] / TOTAL))).sum()
    assert 0 <= divergence_bits < 1e-3


def test_sum_is_corrected_where_that_costs_least() -> None:
    # Rounding leaves more than 300 to give away: all go to entries that were rounded down.
    frequencies = ProbabilityTable.from_probabilities(np.array([[100.49] * 652 + [10.51]]) / TOTAL, 0).channel(0)
    assert set(frequencies[:652].tolist()) == {100, 101}
    assert frequencies[652:].tolist() == [11, 6]


@pytest.mark.parametrize(
    "p", [[[0.5, -0.1]], [[0.5, np.nan]], [[0.5, np.inf]], [0.5, 0.5], np.zeros((0, 2)), np.zeros((2, 0))], ids=str
)
def test_what_is_no_probability_is_rejected(p: list[list[float]]) -> None:
    with pytest.raises(ValueError, match=r"finite, non-negative and of shape \(channels, integers\)"):
        ProbabilityTable.from_probabilities(np.array(p), 0)


def test_too_many_symbols_are_rejected() -> None:
    with pytest.raises(ValueError, match="spreads over 70001 symbols, a table holds 65536: give it a narrower density"):
        ProbabilityTable.from_probabilities(np.ones((1, 70_000)) * (np.arange(70_000) % 69_999 == 0), 0)


@given(st.lists(int32s, min_size=1, max_size=20), st.sampled_from([INT32.min, -1, INT32.max - 3]))
def test_every_int32_is_an_entry_or_an_escape(values: list[int], minimum: int) -> None:
    table = ProbabilityTable.from_probabilities(np.array([[0.125, 0.25, 0.5, 0.125]]), minimum)
    symbols = np.array([[*values, minimum, minimum + 3]], np.int32)
    entry, escaped = table.entry(symbols, 0), table.escaped(symbols, 0)
    is_escaped = entry == 4
    restored = np.empty(symbols.shape, np.int64)
    restored[~is_escaped] = minimum + entry[~is_escaped]
    restored[is_escaped] = table.unescape(escaped, 0)
    assert np.array_equal(restored, symbols)
    assert np.array_equal(is_escaped, (symbols < minimum) | (symbols > minimum + 3))
    assert (escaped >= 1).all() and (escaped < 2**33).all()


def test_escapes_alternate_around_the_table() -> None:
    symbols = np.array([[0, 3, -2, 4, -3, INT32.max, INT32.min]], np.int32)
    assert SMALL.escaped(symbols, 0).tolist() == [1, 2, 3, 4, 2 * (INT32.max - 2) - 1, 2 * (-1 - INT32.min)]


@given(arrays(np.int32, (1, 3, 4), elements=st.integers(-6, 6) | int32s))
def test_code_length_is_the_sum_over_symbols(symbols: np.ndarray) -> None:
    bits = 0.0
    for value in symbols.ravel().tolist():
        index = value + 1 if -1 <= value <= 2 else 4
        bits -= np.log2(int(SMALL.channel(0)[index]) / TOTAL)
        if index == 4:
            escaped = 2 * (value - 2) - 1 if value > 2 else 2 * (-1 - value)
            bits += 2 * (escaped.bit_length() - 1) + 1
    assert SMALL.code_length_bits(symbols) == pytest.approx(bits, abs=1e-6)


def test_arrays_rebuild_the_table() -> None:
    rebuilt = ProbabilityTable.from_arrays(SMALL.to_arrays()).to_arrays()
    assert all(np.array_equal(rebuilt[name], array) for name, array in SMALL.to_arrays().items())


@pytest.mark.parametrize("name", ["minimum", "num_symbols", "frequencies"])
def test_missing_array_is_named(name: str) -> None:
    stored = table_arrays()
    del stored[name]
    with pytest.raises(ValueError, match=f"probability table lacks {name}: write the bundle again"):
        ProbabilityTable.from_arrays(stored)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"minimum": np.array([-1.0])}, "holds .*float64.*expected vectors of int32, int32, uint32"),
        ({"minimum": np.array([-1], ">i4")}, "expected vectors of int32"),
        ({"num_symbols": np.array([4], np.int64)}, "expected vectors of int32"),
        ({"frequencies": np.array([8192, 16384, 32767, 8192, 1])}, "expected vectors of int32"),
        ({"minimum": np.array(-1, np.int32)}, "expected vectors of int32"),
        ({"frequencies": np.ones((5, 1), np.uint32)}, "expected vectors of int32"),
        ({"minimum": np.array([-1, -1], np.int32)}, "has 2 minima for 1 channels"),
        ({"minimum": np.zeros(0, np.int32), "num_symbols": np.zeros(0, np.int32)}, "has 0 minima for 0 channels"),
        ({"num_symbols": np.array([3], np.int32)}, "has 5 frequencies, its channels name 4"),
        ({"num_symbols": np.array([-1], np.int32), "frequencies": np.zeros(0, np.uint32)}, "each at least 2"),
        ({"num_symbols": np.array([0], np.int32), "frequencies": np.array([TOTAL], np.uint32)}, "each at least 2"),
        ({"num_symbols": np.array([INT32.max], np.int32)}, "its channels name 2147483648"),
        ({"minimum": np.array([INT32.max - 2], np.int32)}, "symbols beyond int32"),
        ({"frequencies": np.array([8192, 16384, 32767, 8192, 2], np.uint32)}, "at least 1 and sum to 65536"),
        ({"frequencies": np.array([8192, 16384, 32768, 8192, 0], np.uint32)}, "at least 1 and sum to 65536"),
        ({"frequencies": np.array([2**32 - 1, 1, 65534, 1, 1], np.uint32)}, "at least 1 and sum to 65536"),
    ],
)
def test_damaged_arrays_are_rejected(changed: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ProbabilityTable.from_arrays(table_arrays() | changed)


def test_frequencies_of_a_channel_may_not_borrow_from_another() -> None:
    with pytest.raises(ValueError, match="of a channel must be at least 1 and sum to 65536"):
        ProbabilityTable(np.zeros(2, np.int32), np.ones(2, np.int32), np.array([40000, 20000, 40000, 31072], np.uint32))
