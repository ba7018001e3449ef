"""A few rows of a table of any size, and how its values are spread: both from one pass, in bounded memory."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Numbers = npt.NDArray[np.float64]


class SmallestRows:
    """The rows for which a number is smallest: a random number gives a fair sample, a column its extremes."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._rows: pa.Table | None = None
        self._numbers: Numbers = np.empty(0)

    def add(self, rows: pa.Table, numbers: Numbers) -> None:
        """Look at rows, each with its number; NaN stands for a row that does not take part."""
        if len(self._numbers) == self._capacity:  # most rows of a large table are dropped here
            numbers = np.where(numbers < self._numbers[-1], numbers, np.nan)
        first = np.argsort(numbers, kind="stable")[: min(self._capacity, int(np.isfinite(numbers).sum()))]
        if len(first):
            taken = rows.take(pa.array(first))
            together = taken if self._rows is None else pa.concat_tables([self._rows, taken])
            all_numbers = np.concatenate([self._numbers, numbers[first]])
            order = np.argsort(all_numbers, kind="stable")[: self._capacity]
            self._rows, self._numbers = together.take(pa.array(order)), all_numbers[order]

    def rows(self) -> list[dict[str, Any]]:
        """Return them, the one with the smallest number first."""
        return [] if self._rows is None else list(self._rows.to_pylist())


class Histogram:
    """How many values fall into each of many narrow bins of a fixed width; with `is_log` that of their log10."""

    def __init__(self, width: float, *, is_log: bool = False) -> None:
        self._width = width
        self.is_log = is_log
        self._counts: Counter[int] = Counter()

    def __add__(self, other: "Histogram") -> "Histogram":
        """Count the values of both, whose bins are alike."""
        both = Histogram(self._width, is_log=self.is_log)
        both._counts = self._counts + other._counts
        return both

    def add(self, values: Numbers) -> None:
        """Count values; NaN does not count."""
        known = values[np.isfinite(values)]
        places = np.log10(known) if self.is_log else known
        bins, counts = np.unique(np.floor(places / self._width), return_counts=True)
        self._counts.update(dict(zip(bins.astype(int).tolist(), counts.tolist(), strict=True)))

    @property
    def count(self) -> int:
        """Return how many values there were."""
        return self._counts.total()

    @property
    def decades(self) -> float:
        """Return how many powers of ten lie between the smallest and the largest value of logarithmic bins."""
        return (max(self._counts) - min(self._counts)) * self._width if self._counts else 0.0

    def quantile(self, share: float) -> float | None:
        """Return the middle of the bin that holds a quantile, or None if there are no values."""
        left = share * self.count
        for bin_ in sorted(self._counts):
            left -= self._counts[bin_]
            if left <= 0:
                return self._value(bin_ + 0.5)
        return None

    def bars(self, max_bars: int) -> Iterator[tuple[float, float, int]]:
        """Merge bins into at most `max_bars` bars of equal width; return (start, stop, count) of the non-empty ones."""
        if not self._counts:
            return
        first, last = min(self._counts), max(self._counts)
        size = -(-(last - first + 1) // max_bars)
        merged: Counter[int] = Counter()
        for bin_, count in self._counts.items():
            merged[(bin_ - first) // size] += count
        for bar, count in sorted(merged.items()):
            yield self._value(first + bar * size), self._value(first + (bar + 1) * size), count

    def _value(self, bin_: float) -> float:
        return float(10 ** (bin_ * self._width)) if self.is_log else bin_ * self._width
