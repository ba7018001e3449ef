from dataclasses import replace

import numpy as np
import pytest

from bls.entropy.adaptive.model import NEIGHBOURS
from bls.entropy.mixed.model import (
    DISTANCE,
    DISTANCE_STARTS,
    ENERGY,
    ENERGY_STARTS,
    LEVEL,
    LEVEL_STARTS,
    NUM_SLOTS,
    NUM_TERMS,
    PLACES,
    MixedModel,
    probability_shapes,
)


def even_model(channels: int = 3) -> MixedModel:
    """Return a model without sums, whose models all say 1/2 and count alike."""
    terms = {
        f"{name}_{part}": np.zeros((channels, size), dtype)
        for name in ("magnitude", "value")
        for part, size, dtype in (
            ("neighbour_weights", len(NEIGHBOURS), np.int16),
            ("sources", NUM_TERMS, np.uint16),
            ("places", NUM_TERMS, np.uint16),
            ("weights", NUM_TERMS, np.int16),
        )
    }
    probabilities = {name: np.full(shape, 1 << 15, np.uint16) for name, shape in probability_shapes(channels).items()}
    mixer_weights = np.full((channels, 16, 7), 1 << 13, np.int32)
    return MixedModel(
        magnitude_offset=np.zeros(channels, np.int32), **terms, **probabilities, mixer_weights=mixer_weights
    )


def test_arrays_come_back_as_they_were() -> None:
    model = even_model()
    again = MixedModel.from_arrays(model.to_arrays())
    assert all(np.array_equal(array, getattr(again, name)) for name, array in model.to_arrays().items())
    assert again.channels == 3


@pytest.mark.parametrize("name", sorted(even_model().to_arrays()))
def test_missing_and_misshapen_arrays_are_named(name: str) -> None:
    arrays = even_model().to_arrays()
    with pytest.raises(ValueError, match=f"mixed model has .*{'' if name == 'magnitude_offset' else name}"):
        MixedModel.from_arrays(arrays | {name: arrays[name][:-1]})
    with pytest.raises(ValueError, match=f"mixed model has {name} of int64"):
        MixedModel.from_arrays(arrays | {name: arrays[name].astype(np.int64)})
    del arrays[name]
    with pytest.raises(ValueError, match=f"mixed model lacks {name}: write the bundle again"):
        MixedModel.from_arrays(arrays)


@pytest.mark.parametrize("name", ["magnitude", "value"])
def test_terms_that_the_decoder_does_not_know_are_refused(name: str) -> None:
    weights, places = np.zeros((3, NUM_TERMS), np.int16), np.zeros((3, NUM_TERMS), np.uint16)
    weights[1, 5] = 1  # source 0: coded before channel 1
    model = replace(even_model(), **{f"{name}_weights": weights})
    with pytest.raises(ValueError, match=f"has a {name} source that is not coded before"):
        replace(model, **{f"{name}_weights": np.roll(weights, -1, axis=0)})  # source 0 of channel 0
    places[0, 0] = len(PLACES)
    with pytest.raises(ValueError, match=f"has {name} place 9, expected at most 8"):
        replace(model, **{f"{name}_places": places})


@pytest.mark.parametrize("name", ["magnitude_offset", "magnitude_weights", "magnitude_neighbour_weights"])
def test_negative_magnitudes_are_refused(name: str) -> None:
    array = np.zeros_like(getattr(even_model(), name))
    array[-1] = -1
    with pytest.raises(ValueError, match=r"out of range|not coded before"):
        replace(even_model(), **{name: array})


@pytest.mark.parametrize("name", sorted(probability_shapes(3)))
def test_impossible_answers_are_refused(name: str) -> None:
    array = getattr(even_model(), name).copy()
    array[-1, -1, -1] = 0
    with pytest.raises(ValueError, match="has a probability of 0"):
        replace(even_model(), **{name: array})


@pytest.mark.parametrize(
    ("table", "starts", "ratio"),
    [(LEVEL, LEVEL_STARTS, 2 ** (1 / 3)), (ENERGY, ENERGY_STARTS, 2**0.6), (DISTANCE, DISTANCE_STARTS, 1.45)],
)
def test_levels_begin_at_their_starts(table: np.ndarray, starts: tuple[int, ...], ratio: float) -> None:
    assert [int(np.flatnonzero(table == level)[0]) for level in range(1, len(starts) + 1)] == list(starts)
    assert table[0] == 0 and table[-1] == len(starts)
    ratios = np.array(starts[5:]) / np.array(starts[4:-1])
    assert np.all(np.abs(ratios / ratio - 1) < 0.2)


def test_slots_are_one_unsigned_and_three_signed_scales() -> None:
    assert NUM_SLOTS == 12 + 3 * 23
