"""Logistic mixing: the tables that turn probabilities into what is added up, and back. Integers only.

Mahoney, "Adaptive Weighing of Context Models for Lossless Data Compression", 2005 (the PAQ programs). Tables are made
by exact integer arithmetic, never by a machine's `exp` and `log`, which differ in the last digit.
"""

import numpy as np
from jaxtyping import Int32, UInt64

LOGIT_UNITS = 256
"""A logit, ln(p / (1 - p)), is an integer in units of 1/256."""
MAX_LOGIT = 2839
"""Where the probability reaches 65535 / 65536."""
STRETCH_BITS = 12
"""Bits of a probability that its logit is looked up by."""

_FRACTION_BITS = 96
_E_TO_ONE_UNIT = 79538252774825785662640898770
"""e**(1/256) in units of 2**-96."""

NUM_RATES = 256
"""A state's rate falls while it counts decisions, up to this number."""
RATES: UInt64[np.ndarray, "256"] = np.array([2 * 65536 // (2 * n + 3) for n in range(NUM_RATES)], np.uint64)
"""Count of decisions -> how far the estimate moves to what was answered: 1 / (count + 1.5) in units of 2**-16."""


def _squash() -> Int32[np.ndarray, "5679"]:
    one = power = 1 << _FRACTION_BITS
    above_half = []
    for _ in range(MAX_LOGIT + 1):
        above_half.append(((power << 17) // (one + power) + 1) >> 1)  # 2**16 * power / (1 + power), rounded
        power = power * _E_TO_ONE_UNIT >> _FRACTION_BITS
    below_half = [65536 - p for p in above_half[:0:-1]]
    return np.array(below_half + above_half, np.int32)


SQUASH: Int32[np.ndarray, "5679"] = _squash()
"""Logit + MAX_LOGIT -> probability in units of 2**-16, 1 to 65535."""

STRETCH: Int32[np.ndarray, "4096"] = (
    np.searchsorted(SQUASH, (np.arange(1 << STRETCH_BITS) * 16 + 8).astype(np.int32)) - MAX_LOGIT
).astype(np.int32)
"""First 12 bits of a probability -> the smallest logit whose probability is at least that of their middle."""
