"""What the mixing coder starts from, beside the `AdaptiveModel`: integers fitted to training symbols once and stored.

Two weighted sums over symbols that the decoder knows already predict a symbol's distance from its channel's mode: one
of magnitudes how large it is, one of signed distances its value. Channels coded before are known everywhere, so below
and to the right as well.

Letters in shapes: c channels, s sources, k contexts, d decisions, t slots, i inputs of the mixer.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int16, Int32, UInt8, UInt16

from bls.entropy.adaptive.model import NEIGHBOURS
from bls.entropy.arrays import StoredArrays, are_coded_before
from bls.entropy.tree import NUM_CONTEXTS, NUM_DECISIONS

NUM_TERMS = 32
PLACES = tuple((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1))
"""Rows and columns from a symbol to where a source's symbol is taken from."""
CENTRE = PLACES.index((0, 0))
SUM_FRACTION_BITS = 12
"""Fractional bits of both sums and of their weights."""

# What contexts are made of: a number's level is how many of these starts it reaches. Ratios are constant, rounded up.
LEVEL_STARTS = (2, 3, 4, 6, 7, 8, 11, 13, 16, 21, 26, 32, 41, 51, 64, 81, 102, 128, 162, 204, 256, 323, 407)
"""Starts of the levels of the expected magnitude, in 1/64: third octaves."""
ENERGY_STARTS = (12, 19, 28, 42, 64, 96, 146, 221, 335, 507, 768)
"""Starts of the levels of the neighbours' six errors of prediction, in 1/16."""
DISTANCE_STARTS = (1, 3, 6, 10, 15, 22, 32, 46, 66, 96, 144)
"""Starts of the levels of the distance to the predicted value, in 1/16."""
NUM_LEVELS, NUM_ENERGIES, NUM_DISTANCES = (len(s) + 1 for s in (LEVEL_STARTS, ENERGY_STARTS, DISTANCE_STARTS))
NUM_SIGNS = 3**4
"""Combinations of the signs of the four nearest neighbours: negative, zero, positive."""

NUM_SIGNED_DISTANCES = 2 * NUM_DISTANCES - 1
NUM_SLOTS = NUM_DISTANCES + 3 * NUM_SIGNED_DISTANCES
"""What stands for a decision in models of the predicted value: its kind, and how far the prediction is from where it
turns: for "other than the mode?" without sign, for "smaller?", "further than 1?" and "further than 2 or more?" with."""

NUM_MODELS = 6
NUM_INPUTS = NUM_MODELS + 1
"""Inputs of the mixer: one per model, and a constant."""
FIRST_COUNT = 20
"""Weight of a stored probability against the decisions of the image: as if this number had been seen."""


def _level_table(starts: tuple[int, ...], size: int) -> UInt8[np.ndarray, " n"]:
    return np.searchsorted(starts, np.arange(size), "right").astype(np.uint8)


LEVEL: UInt8[np.ndarray, "512"] = _level_table(LEVEL_STARTS, 512)
ENERGY: UInt8[np.ndarray, "1024"] = _level_table(ENERGY_STARTS, 1024)
DISTANCE: UInt8[np.ndarray, "256"] = _level_table(DISTANCE_STARTS, 256)


@dataclass(frozen=True)
class MixedModel(StoredArrays):
    """Integers of the two sums, the first probabilities of five models (the sixth's are the adaptive coder's), weights.

    Raises:
        ValueError: the arrays do not belong together or are out of range.
    """

    stored_name = "mixed model"

    magnitude_offset: Int32[np.ndarray, " c"]
    """The expected magnitude where all magnitudes are zero."""
    magnitude_neighbour_weights: Int16[np.ndarray, "c 6"]
    """Weights of `NEIGHBOURS` in the own channel; no weight of a magnitude is negative."""
    magnitude_sources: UInt16[np.ndarray, "c s"]
    """Channels coded before; a channel of weight 0 does not count."""
    magnitude_places: UInt16[np.ndarray, "c s"]
    """Index into `PLACES` of each source."""
    magnitude_weights: Int16[np.ndarray, "c s"]
    value_neighbour_weights: Int16[np.ndarray, "c 6"]
    value_sources: UInt16[np.ndarray, "c s"]
    value_places: UInt16[np.ndarray, "c s"]
    value_weights: Int16[np.ndarray, "c s"]
    by_activity_and_level: UInt16[np.ndarray, "k k d"]
    """Probabilities of yes, in units of 2**-16; so are the next four."""
    by_signs_and_level: UInt16[np.ndarray, "k k d"]
    by_total: UInt16[np.ndarray, "c k d"]
    by_value: UInt16[np.ndarray, "c k t"]
    by_value_and_energy: UInt16[np.ndarray, "k k t"]
    mixer_weights: Int32[np.ndarray, "c d i"]
    """With 16 fractional bits."""

    def __post_init__(self) -> None:
        _check(self)

    @property
    def channels(self) -> int:
        """Number of channels."""
        return len(self.magnitude_offset)


def probability_shapes(channels: int) -> dict[str, tuple[int, int, int]]:
    """Return the shapes of the models' states: contexts, then decisions or slots."""
    return {
        "by_activity_and_level": (NUM_CONTEXTS, NUM_LEVELS, NUM_DECISIONS),
        "by_signs_and_level": (NUM_SIGNS, NUM_LEVELS, NUM_DECISIONS),
        "by_total": (channels, NUM_CONTEXTS, NUM_DECISIONS),
        "by_value": (channels, NUM_LEVELS // 4, NUM_SLOTS),
        "by_value_and_energy": (NUM_LEVELS // 2, NUM_ENERGIES, NUM_SLOTS),
    }


def _check(model: MixedModel) -> None:
    c = model.magnitude_offset.size
    expected: dict[str, tuple[tuple[int, ...], type]] = {"magnitude_offset": ((c,), np.int32)}
    for name in ("magnitude", "value"):
        expected |= {
            f"{name}_neighbour_weights": ((c, len(NEIGHBOURS)), np.int16),
            f"{name}_sources": ((c, NUM_TERMS), np.uint16),
            f"{name}_places": ((c, NUM_TERMS), np.uint16),
            f"{name}_weights": ((c, NUM_TERMS), np.int16),
        }
    expected |= {name: (shape, np.uint16) for name, shape in probability_shapes(c).items()}
    expected["mixer_weights"] = ((c, NUM_DECISIONS, NUM_INPUTS), np.int32)
    model.check_shapes(expected)
    _check_terms(model)
    if not all(getattr(model, name).all() for name in probability_shapes(c)):
        raise ValueError("mixed model has a probability of 0, expected 1 to 65535: write the bundle again")


def _check_terms(model: MixedModel) -> None:
    """Check what the coder reads unchecked."""
    for name in ("magnitude", "value"):
        sources, places, weights = (getattr(model, f"{name}_{part}") for part in ("sources", "places", "weights"))
        if not are_coded_before(sources, weights):
            raise ValueError(f"mixed model has a {name} source that is not coded before its channel: write it again")
        if (places >= len(PLACES)).any():
            raise ValueError(
                f"mixed model has {name} place {places.max()}, expected at most {len(PLACES) - 1}: "
                "write the bundle again"
            )
    parts = (model.magnitude_offset, model.magnitude_neighbour_weights, model.magnitude_weights)
    if min(part.min(initial=0) for part in parts) < 0 or model.magnitude_offset.max(initial=0) >= 1 << 30:
        raise ValueError("mixed model has a magnitude's weight or offset out of range: write the bundle again")
