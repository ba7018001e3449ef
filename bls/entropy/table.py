"""Integer probabilities of every channel's symbols: made once from the density, stored, never derived again.

A channel has one entry per symbol from its `minimum` to its `maximum`, and an escape entry for all others, whose value
follows in an Exp-Golomb code. The entries are integers that sum to 2**16, so that every machine decodes the same.

Letters in shapes: c channels, k integers at which the density was sampled, n entries of all channels together, h and w
rows and columns of latents.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float64, Int32, Int64, UInt32

from bls.entropy.arrays import StoredArrays

PRECISION = 16
TOTAL = 1 << PRECISION
INT32 = np.iinfo(np.int32)


@dataclass(frozen=True)
class ProbabilityTable(StoredArrays):
    """The channels' frequencies, one after the other; each channel's escape entry is its last.

    Raises:
        ValueError: the arrays do not make a table.
    """

    stored_name = "probability table"

    minimum: Int32[np.ndarray, " c"]
    """The smallest symbol with an entry of its own."""
    num_symbols: Int32[np.ndarray, " c"]
    """How many symbols have an entry of their own."""
    frequencies: UInt32[np.ndarray, " n"]

    def __post_init__(self) -> None:
        _check(self.minimum, self.num_symbols, self.frequencies)

    @classmethod
    def from_probabilities(
        cls, probabilities: Float64[np.ndarray, "c k"], minimum: int | Int64[np.ndarray, " c"]
    ) -> "ProbabilityTable":
        """Round probabilities of consecutive integers from `minimum` on to frequencies.

        A channel keeps the symbols between the first and the last whose probability rounds to an entry; the escape
        entry gets what is left.

        Raises:
            ValueError: a probability is negative or not finite, or a channel has none.
        """
        is_valid = np.isfinite(probabilities) & (probabilities >= 0)
        if probabilities.ndim != 2 or probabilities.size == 0 or not is_valid.all():
            raise ValueError("probabilities must be finite, non-negative and of shape (channels, integers)")
        totals = probabilities.sum(1, keepdims=True)
        if not (totals > 0).all():
            raise ValueError(f"channel {int((totals[:, 0] <= 0).argmax())} has no probabilities: fit its density first")
        kept_minimum, num_symbols, frequencies = [], [], []
        for first, p in zip(np.broadcast_to(minimum, len(totals)), probabilities / np.maximum(totals, 1), strict=True):
            has_entry = np.flatnonzero(p * TOTAL >= min(0.5, p.max() * TOTAL))
            kept = p[has_entry[0] : has_entry[-1] + 1]
            kept_minimum.append(first + has_entry[0])
            num_symbols.append(len(kept))
            frequencies.append(_quantize(np.append(kept, max(1 - kept.sum(), 0))))
        return cls(np.array(kept_minimum, np.int32), np.array(num_symbols, np.int32), np.concatenate(frequencies))

    @property
    def channels(self) -> int:
        """How many channels have a distribution."""
        return len(self.minimum)

    @property
    def maximum(self) -> Int32[np.ndarray, " c"]:
        """The largest symbol with an entry of its own, per channel."""
        return self.minimum + self.num_symbols - 1

    @cached_property
    def mode(self) -> Int32[np.ndarray, " c"]:
        """The most probable symbol per channel; the smallest of several."""
        return np.array([m + self.channel(c)[:-1].argmax() for c, m in enumerate(self.minimum)], np.int32)

    def channel(self, c: int) -> UInt32[np.ndarray, " entries"]:
        """Return the frequencies of one channel; the last is the escape."""
        return self.frequencies[self._start[c] : self._start[c + 1]]

    def entry(self, symbols: Int32[np.ndarray, "h w"], c: int) -> Int64[np.ndarray, "h w"]:
        """Return where in `channel(c)` each symbol stands; the escape entry for those without their own."""
        index = symbols.astype(np.int64) - self.minimum[c]
        return np.where((index >= 0) & (index < self.num_symbols[c]), index, self.num_symbols[c])

    def escaped(self, symbols: Int32[np.ndarray, "h w"], c: int) -> Int64[np.ndarray, " escaped"]:
        """Return what the Exp-Golomb code codes of symbols without an entry, in raster order: integers from 1 on.

        A symbol d above the maximum gives 2d - 1, one d below the minimum 2d.
        """
        values = symbols.astype(np.int64)
        below, above = self.minimum[c] - values, values - self.maximum[c]
        return np.where(below > 0, 2 * below, 2 * above - 1)[(below > 0) | (above > 0)]

    def unescape(self, escaped: Int64[np.ndarray, " escaped"], c: int) -> Int64[np.ndarray, " escaped"]:
        """Invert `escaped`; the result may lie outside int32 where no symbol was escaped to it."""
        is_below = escaped % 2 == 0
        distance = (escaped + 1) // 2
        return np.where(is_below, self.minimum[c] - distance, self.maximum[c] + distance)

    def code_length_bits(self, symbols: Int32[np.ndarray, "c h w"]) -> float:
        """Return the ideal code length of symbols under this table, escaped values included."""
        bits = 0.0
        for c, plane in enumerate(symbols):
            counts = np.bincount(self.entry(plane, c).ravel(), minlength=self.num_symbols[c] + 1)
            bits += counts @ (PRECISION - np.log2(self.channel(c)))
            bits += (2 * np.floor(np.log2(self.escaped(plane, c))) + 1).sum()
        return float(bits)

    @cached_property
    def _start(self) -> Int64[np.ndarray, " c+1"]:
        return np.append(0, np.cumsum(self.num_symbols.astype(np.int64) + 1))


def _check(minimum: np.ndarray, num_symbols: np.ndarray, frequencies: np.ndarray) -> None:
    kinds = [str(array.dtype) for array in (minimum, num_symbols, frequencies)]
    if kinds != ["int32", "int32", "uint32"] or not minimum.ndim == num_symbols.ndim == frequencies.ndim == 1:
        raise ValueError(f"probability table holds {kinds}, expected vectors of int32, int32, uint32")
    if len(minimum) != len(num_symbols) or len(minimum) == 0:
        raise ValueError(f"probability table has {len(minimum)} minima for {len(num_symbols)} channels")
    entries = num_symbols.astype(np.int64) + 1
    if entries.min() < 2 or entries.sum() != len(frequencies):
        raise ValueError(
            f"probability table has {len(frequencies)} frequencies, its channels name {entries.sum()}, each at least 2"
        )
    if (minimum.astype(np.int64) + num_symbols - 1 > INT32.max).any():
        raise ValueError("probability table has symbols beyond int32")
    sums = np.add.reduceat(frequencies.astype(np.int64), np.append(0, np.cumsum(entries)[:-1]))
    if frequencies.min() < 1 or (sums != TOTAL).any():
        raise ValueError(f"frequencies of a channel must be at least 1 and sum to {TOTAL}: write the bundle again")


def _quantize(p: Float64[np.ndarray, " k"]) -> UInt32[np.ndarray, " k"]:
    """Round probabilities to frequencies of at least 1, then correct their sum to `TOTAL` where that costs least."""
    if len(p) > TOTAL:
        raise ValueError(f"a channel spreads over {len(p)} symbols, a table holds {TOTAL}: give it a narrower density")
    frequencies = np.maximum(np.rint(p * TOTAL), 1)
    while (excess := frequencies.sum() - TOTAL) != 0:
        step = -np.sign(excess)
        changed = np.maximum(frequencies + step, 0.5)
        gain = np.where(frequencies + step >= 1, p * np.log(changed / frequencies), -np.inf)
        frequencies[gain.argmax()] += step
    return frequencies.astype(np.uint32)
