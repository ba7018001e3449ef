"""The tree of binary decisions that stands for a symbol, and the context in which each decision is taken.

Tree (Ballé, Laparra, Simoncelli, ICLR 2017, section 4, in our reading): is it the channel's mode? if not, is it
smaller? then a unary chain of "further still?", at most to the channel's minimum or maximum; what lies beyond follows
in an Exp-Golomb code. Decisions of the escape are equally probable (bypass), all others adaptive, each with a state per
context: how much goes on around the symbol (`AdaptiveModel`). Worked example: docs/entropy-coding.md.
"""

import numpy as np
from jaxtyping import Float64, Int32, UInt8

from bls.entropy.table import INT32, ProbabilityTable

IS_MODE_NOT = 0
"""Decision: does the symbol differ from the mode?"""
IS_SMALLER = 1
IS_FURTHER = 2
"""First decision of the chain: is the distance more than 1?"""
MAX_CHAIN = 255
"""Longest chain, whatever the table's range: bounds the time that a symbol takes."""
CHAIN_GROUPS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 13, 18, 31, 64)
"""Distances at which the chain goes on to its next state; in between they share one, as far tails are geometric."""
NUM_DECISIONS = IS_FURTHER + len(CHAIN_GROUPS)

FURTHER_DECISION: UInt8[np.ndarray, "256"] = np.append(
    np.uint8(0), IS_FURTHER + np.searchsorted(CHAIN_GROUPS, np.arange(1, MAX_CHAIN + 1), "right") - 1
).astype(np.uint8)
"""Distance from the mode -> the decision whether it is further still."""

# The activity around a symbol is a fixed-point number; contexts are half octaves of it, from 4 on.
ACTIVITY_FRACTION_BITS = 8
CONTEXT_STARTS = (6, 8, 11, 16, 23, 32, 45, 64, 91, 128, 181, 256, 362, 512, 724)
NUM_CONTEXTS = len(CONTEXT_STARTS) + 1
CONTEXT_OF_ACTIVITY: UInt8[np.ndarray, "1024"] = np.searchsorted(CONTEXT_STARTS, np.arange(1024), "right").astype(
    np.uint8
)
"""Activity without its fraction, at most 1023 -> context."""


# What walking the tree takes in both coders.
CERTAIN = np.uint64(0x7FFF_FFFF)
"""A probability of one, in 31 bits; numba keeps unsigned arithmetic only where both operands are typed so."""
MIN_SYMBOL, MAX_SYMBOL = int(INT32.min), int(INT32.max)
MAX_MAGNITUDE = 255
"""A distance from the mode counts at most this much in the sums around other symbols."""
MARGIN = 2
"""Rows and columns of zeros around a channel, which stand for what lies outside."""


def chain_lengths(table: ProbabilityTable) -> tuple[Int32[np.ndarray, " c"], Int32[np.ndarray, " c"]]:
    """Return how many symbols below and above each channel's mode the chain reaches before the escape."""
    below, above = table.mode - table.minimum, table.maximum - table.mode
    return np.minimum(below, MAX_CHAIN).astype(np.int32), np.minimum(above, MAX_CHAIN).astype(np.int32)


def decision_probabilities(table: ProbabilityTable) -> Float64[np.ndarray, "c decisions"]:
    """Return the probability that each decision is answered yes, under the table alone."""
    probabilities = np.full((table.channels, NUM_DECISIONS), 0.5)
    for c, mode in enumerate(table.mode):
        frequencies = table.channel(c).astype(np.float64)
        at = int(mode - table.minimum[c])
        below, above = frequencies[:at][::-1], frequencies[at + 1 : -1]
        probabilities[c, IS_MODE_NOT] = 1 - frequencies[at] / frequencies.sum()
        probabilities[c, IS_SMALLER] = (below.sum() + 0.5) / (below.sum() + above.sum() + 1)
        # Both sides share the chain. at_distance[d] symbols are d from the mode, the escaped ones beyond all.
        at_distance = np.zeros(MAX_CHAIN + 2)
        for side in (below, above):
            distances = np.minimum(np.arange(1, len(side) + 1), MAX_CHAIN + 1)
            np.add.at(at_distance, distances, side)
        at_distance[-1] += frequencies[-1]
        further = at_distance[::-1].cumsum()[::-1]  # further[d]: at least d
        for decision in range(IS_FURTHER, NUM_DECISIONS):
            d = np.flatnonzero(decision == FURTHER_DECISION)
            d = d[d > 0]
            probabilities[c, decision] = (further[d + 1].sum() + 0.5) / (further[d].sum() + 1)
    return probabilities
