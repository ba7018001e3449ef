"""What both fittings of starting states share: smoothed counts, shifted planes, and the likeliest mean."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Float64, Shaped, UInt64

from bls.entropy.tree import MARGIN

PRIOR_COUNT = 4.0
"""What a prior weighs in a state's first probability, in decisions."""
RESTING_MAGNITUDE = 0.05
"""Added to every magnitude: a channel that is always zero has an activity too."""


def yes_and_total(counts: UInt64[np.ndarray, "..."]) -> tuple[Float64[np.ndarray, "..."], Float64[np.ndarray, "..."]]:
    """Return how often decisions were answered yes, and how often they were taken, from a coder's counts."""
    yes = (counts >> np.uint64(32)).astype(np.float64)
    return yes, yes + (counts & np.uint64(0xFFFF_FFFF)).astype(np.float64)


def shifted(planes: Shaped[np.ndarray, "c h w"], offsets: Sequence[tuple[int, int]]) -> Shaped[np.ndarray, "c o hw"]:
    """Return the values at these rows and columns from every position, at most `MARGIN` away; 0 outside."""
    _, height, width = planes.shape
    padded = np.pad(planes, ((0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN)))
    moved = [padded[:, MARGIN + dy : MARGIN + dy + height, MARGIN + dx : MARGIN + dx + width] for dy, dx in offsets]
    return np.stack(moved, 1).reshape(len(planes), len(offsets), -1)


def fit_mean(
    features: Float32[np.ndarray, "f n"], target: Float32[np.ndarray, " n"], *, iterations: int = 40
) -> Float64[np.ndarray, " f"]:
    """Return non-negative weights that minimise `mean(target / m + log(m))`, m = weights @ features.

    Multiplicative updates: each weight by the root of the ratio of the two terms' derivatives.
    """
    scale = features.mean(1) + 1e-9
    normalized = features / scale[:, None]
    weights = np.full(len(features), target.mean() / len(features), np.float32)
    for _ in range(iterations):
        mean = weights @ normalized + 1e-6
        weights *= np.sqrt((normalized @ (target / mean**2)) / (normalized @ (1 / mean) + 1e-12))
    fitted: np.ndarray = (weights / scale).astype(np.float64)
    return fitted
