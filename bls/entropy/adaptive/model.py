"""What the adaptive coder starts from: integers per channel, fitted to training symbols once and stored.

The activity around a symbol is a weighted sum of magnitudes (distances from the channel's mode) that the decoder knows
already: six neighbours in its own channel, and the same place in up to 16 channels coded before.

Letters in shapes: c channels, s sources, k contexts, d decisions.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32, UInt16

from bls.entropy.arrays import Expected, StoredArrays, are_coded_before
from bls.entropy.table import ProbabilityTable
from bls.entropy.tree import MAX_CHAIN, NUM_CONTEXTS, NUM_DECISIONS, chain_lengths, decision_probabilities

NUM_SOURCES = 16
NEIGHBOURS = ((0, -1), (0, -2), (-1, 0), (-1, -1), (-1, 1), (-2, 0))
"""Rows and columns from a symbol to the neighbours of its own channel whose magnitudes count."""


@dataclass(frozen=True)
class AdaptiveModel(StoredArrays):
    """Integers of every channel: the tree's shape, the weights of its activity, the states' first probabilities.

    Raises:
        ValueError: the arrays do not belong together or are out of range.
    """

    stored_name = "adaptive model"

    mode: Int32[np.ndarray, " c"]
    below: Int32[np.ndarray, " c"]
    """How many symbols below the mode the chain reaches; `above` is the same above the mode."""
    above: Int32[np.ndarray, " c"]
    neighbour_weights: UInt16[np.ndarray, "c 6"]
    """Weights of `NEIGHBOURS`; the activity and all weights have 8 fractional bits."""
    sources: UInt16[np.ndarray, "c s"]
    """Channels coded before whose magnitudes count, unless their weight is 0."""
    source_weights: UInt16[np.ndarray, "c s"]
    offset: UInt16[np.ndarray, " c"]
    """The activity where all magnitudes are zero."""
    probabilities: UInt16[np.ndarray, "c k d"]
    """Probabilities of yes, in units of 2**-16, per context and decision."""

    def __post_init__(self) -> None:
        _check(self)

    @classmethod
    def from_table(cls, table: ProbabilityTable) -> "AdaptiveModel":
        """Return the model that knows only the density: one context, and its probabilities."""
        c = table.channels
        below, above = chain_lengths(table)
        probabilities = to_sixteen_bits(decision_probabilities(table))
        return cls(
            mode=table.mode,
            below=below,
            above=above,
            neighbour_weights=np.zeros((c, len(NEIGHBOURS)), np.uint16),
            sources=np.zeros((c, NUM_SOURCES), np.uint16),
            source_weights=np.zeros((c, NUM_SOURCES), np.uint16),
            offset=np.zeros(c, np.uint16),
            probabilities=np.repeat(probabilities[:, None], NUM_CONTEXTS, 1),
        )

    @property
    def channels(self) -> int:
        """Number of channels."""
        return len(self.mode)


def to_sixteen_bits(probabilities: np.ndarray) -> np.ndarray:
    """Round probabilities to units of 2**-16, neither 0 nor 1."""
    return np.clip(np.rint(probabilities * 65536), 1, 65535).astype(np.uint16)


def _check(model: AdaptiveModel) -> None:
    c = model.mode.size
    expected: Expected = {
        "mode": ((c,), np.int32),
        "below": ((c,), np.int32),
        "above": ((c,), np.int32),
        "neighbour_weights": ((c, len(NEIGHBOURS)), np.uint16),
        "sources": ((c, NUM_SOURCES), np.uint16),
        "source_weights": ((c, NUM_SOURCES), np.uint16),
        "offset": ((c,), np.uint16),
        "probabilities": ((c, NUM_CONTEXTS, NUM_DECISIONS), np.uint16),
    }
    model.check_shapes(expected)
    lengths = np.concatenate([model.below, model.above])
    if ((lengths < 0) | (lengths > MAX_CHAIN)).any():
        raise ValueError(
            f"adaptive model has chains of {lengths.min()} to {lengths.max()} symbols, expected 0 to {MAX_CHAIN}: "
            "write the bundle again"
        )
    if not are_coded_before(model.sources, model.source_weights):
        raise ValueError("adaptive model has a source that is not coded before its channel: write the bundle again")
    if not model.probabilities.all():
        raise ValueError("adaptive model has a probability of 0, expected 1 to 65535: write the bundle again")
