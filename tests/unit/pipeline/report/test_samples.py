import numpy as np
import pyarrow as pa
import pytest

from pipeline.report.samples import Histogram, SmallestRows


def test_the_smallest_rows_are_kept_whatever_the_order_of_tables() -> None:
    numbers = np.random.default_rng(0).permutation(1000).astype(float)
    rows = SmallestRows(7)
    for part in np.split(numbers, [3, 500, 501]):
        rows.add(pa.table({"number": part}), part)
    assert [row["number"] for row in rows.rows()] == list(range(7))


def test_rows_without_a_number_take_no_part() -> None:
    rows = SmallestRows(3)
    rows.add(pa.table({"key": ["a", "b", "c"]}), np.array([np.nan, 2, np.nan]))
    rows.add(pa.table({"key": ["d"]}), np.array([np.nan]))
    assert rows.rows() == [{"key": "b"}]
    assert SmallestRows(3).rows() == []


def test_a_histogram_counts_every_value_once() -> None:
    values = np.random.default_rng(0).normal(30, 4, 5000)
    histogram = Histogram(0.1)
    for part in np.array_split(values, 7):
        histogram.add(part)
    histogram.add(np.array([np.nan]))
    bars = list(histogram.bars(40))
    assert len(bars) <= 40
    assert sum(count for _, _, count in bars) == histogram.count == 5000
    for start, stop, count in bars:
        assert count == ((values >= start - 1e-9) & (values < stop - 1e-9)).sum()


def test_logarithmic_bins_are_as_wide_everywhere_in_percent() -> None:
    values = np.random.default_rng(1).lognormal(0, 2, 999)
    histogram = Histogram(0.01, is_log=True)
    histogram.add(values)
    assert histogram.decades == pytest.approx(np.log10(values.max() / values.min()), abs=0.02)
    for share in (0.25, 0.5, 0.75):
        assert histogram.quantile(share) == pytest.approx(np.quantile(values, share), rel=0.03)
    for start, stop, count in histogram.bars(20):
        assert count == ((values >= start * (1 - 1e-9)) & (values < stop * (1 - 1e-9))).sum()


def test_histograms_add_up() -> None:
    parts, both = [Histogram(0.5), Histogram(0.5)], Histogram(0.5)
    for part, values in zip(parts, (np.array([1.0, 2.0]), np.array([1.1, 7.0])), strict=True):
        part.add(values)
        both.add(values)
    assert list((parts[0] + parts[1]).bars(40)) == list(both.bars(40))


def test_quantiles_are_those_of_the_values_within_a_bin() -> None:
    values = np.random.default_rng(1).exponential(1, 999)
    histogram = Histogram(0.01)
    histogram.add(values)
    for share in (0.25, 0.5, 0.75):
        assert histogram.quantile(share) == pytest.approx(np.quantile(values, share), abs=0.01)
    assert Histogram(1).quantile(0.5) is None
    assert list(Histogram(1).bars(10)) == []
