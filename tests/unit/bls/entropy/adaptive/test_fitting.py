from collections.abc import Sequence

import numpy as np
import pytest

from bls.entropy.adaptive import coder as arithmetic_coder
from bls.entropy.adaptive.coder import AdaptiveCoder
from bls.entropy.adaptive.fitting import fit_adaptive_model
from bls.entropy.adaptive.model import NEIGHBOURS, AdaptiveModel
from bls.entropy.estimates import PRIOR_COUNT
from bls.entropy.table import ProbabilityTable
from bls.entropy.tree import CONTEXT_STARTS, IS_MODE_NOT

SIDE = 40


def table_for(symbols: np.ndarray) -> ProbabilityTable:
    """Return the table of the symbols' own histogram."""
    low, high = int(symbols.min()), int(symbols.max())
    counts = np.stack([np.bincount(plane.ravel() - low, minlength=high - low + 1) for plane in symbols])
    return ProbabilityTable.from_probabilities(counts.astype(float), low)


def fit(images: Sequence[np.ndarray]) -> AdaptiveModel:
    return fit_adaptive_model(table_for(np.concatenate(images, 1)), images)


def laplace(scale: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.rint(rng.laplace(scale=scale)).astype(np.int32)


def follow(dy: int, dx: int, rng: np.random.Generator) -> np.ndarray:
    """Return a plane in which the magnitude of each symbol depends on that of one neighbour alone."""
    plane = np.zeros((SIDE, SIDE), np.int32)
    for y, x in np.ndindex(plane.shape):
        inside = y + dy >= 0 and 0 <= x + dx < SIDE
        neighbour = abs(int(plane[y + dy, x + dx])) if inside else 4
        plane[y, x] = np.rint(rng.laplace(scale=0.5 + 0.8 * neighbour)) if neighbour < 60 else 0
    return plane


@pytest.mark.parametrize("neighbour", NEIGHBOURS, ids=str)
def test_weights_find_the_informative_neighbour(neighbour: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    model = fit([follow(*neighbour, rng)[None] for _ in range(4)])
    weights = model.neighbour_weights[0].astype(int)
    assert weights.argmax() == NEIGHBOURS.index(neighbour)
    assert np.sort(weights)[-2] < 0.25 * weights.max()


def test_weights_find_the_informative_source() -> None:
    rng = np.random.default_rng(0)
    scale = np.exp(rng.normal(size=(24, 2, SIDE, SIDE)))
    scale[23] = scale[5]  # the last channel's scale is that of channel 5; no position tells of its neighbours
    images = [laplace(3 * scale[:, n], rng) for n in range(2)]
    model = fit(images)
    found = model.sources[23, model.source_weights[23].argmax()]
    assert found == 5
    others = model.source_weights[23][model.sources[23] != 5]
    assert max(others.max(), model.neighbour_weights[23].max()) < 0.25 * model.source_weights[23].max()


def test_sources_are_distinct_and_coded_before() -> None:
    rng = np.random.default_rng(0)
    model = fit([laplace(np.full((24, 12, 12), 2.0), rng)])
    for c in range(24):
        used = model.sources[c, model.source_weights[c] > 0]
        assert len(set(used.tolist())) == len(used) <= min(c, 16)
        assert (used < c).all()


def test_quiet_symbols_alone_fall_into_the_first_context() -> None:
    rng = np.random.default_rng(0)
    scale = np.where(np.arange(SIDE) < SIDE // 2, 0.1, 20.0)  # half of each image is quiet
    images = [laplace(np.broadcast_to(scale, (1, SIDE, SIDE)), rng) for _ in range(4)]
    model = fit(images)
    counts = np.zeros(model.probabilities.shape, np.uint64)
    for image in images:
        arithmetic_coder.count_decisions(image, model, counts)
    visits = ((counts >> np.uint64(32)) + (counts & np.uint64(2**32 - 1)))[0, :, IS_MODE_NOT].astype(float)
    assert visits[0] > 0.2 * visits.sum()
    assert visits[4:].sum() > 0.4 * visits.sum()  # the loud half is two octaves and more above
    assert model.offset[0] < CONTEXT_STARTS[0] << 8


def test_model_without_symbols_is_that_of_the_table() -> None:
    table = ProbabilityTable.from_probabilities(np.array([[0.25, 0.5, 0.25]]), -1)
    expected = AdaptiveModel.from_table(table).to_arrays()
    assert all(
        np.array_equal(array, expected[name]) for name, array in fit_adaptive_model(table, []).to_arrays().items()
    )


def test_first_probabilities_are_the_counts_smoothed_towards_what_is_known() -> None:
    symbols = np.array([[[0] * 30 + [1] * 10]], np.int32)
    table = ProbabilityTable.from_probabilities(np.array([[0.25, 0.5, 0.25]]), -1)
    model = fit_adaptive_model(table, [symbols])
    counts = np.zeros(model.probabilities.shape, np.uint64)
    arithmetic_coder.count_decisions(symbols, model, counts)
    yes, no = (counts >> np.uint64(32)).astype(float)[0, :, IS_MODE_NOT], (counts & np.uint64(2**32 - 1)).astype(float)
    total = yes + no[0, :, IS_MODE_NOT]
    assert total.sum() == 40 and yes.sum() == 10
    prior = AdaptiveModel.from_table(table).probabilities[0, 0, IS_MODE_NOT] / 65536
    channel = (10 + PRIOR_COUNT * prior) / (40 + PRIOR_COUNT)
    # One channel: what fell in all channels is what fell in this one.
    context = (yes + PRIOR_COUNT * channel) / (total + PRIOR_COUNT)
    expected = (yes + PRIOR_COUNT * context) / (total + PRIOR_COUNT)
    assert np.abs(model.probabilities[0, :, IS_MODE_NOT] / 65536 - expected).max() < 1e-4
    assert (total == 0).any() and np.ptp(expected[total == 0]) == 0


@pytest.mark.parametrize("value", [0, 7, -(2**31), 2**31 - 1])
def test_constant_channel_is_fitted(value: int) -> None:
    symbols = np.full((2, 6, 6), value, np.int32)
    symbols[1, 3, 3] = 5
    table = ProbabilityTable.from_probabilities(np.array([[1.0], [1.0]]), value)
    model = fit_adaptive_model(table, [symbols])
    payload = AdaptiveCoder(model).encode(symbols)
    assert np.array_equal(AdaptiveCoder(model).decode(payload, symbols.shape), symbols)
    assert len(payload) < 16


def test_fit_codes_other_images_of_the_kind_in_fewer_bits() -> None:
    rng = np.random.default_rng(0)

    def image() -> np.ndarray:
        coarse = np.exp(1.5 * rng.normal(size=(4, 4)))
        return laplace(np.broadcast_to(np.kron(coarse, np.ones((10, 10))), (4, SIDE, SIDE)), rng)

    training, other = [image() for _ in range(10)], image()
    table = table_for(np.concatenate([*training, other], 1))
    num_bytes = [
        len(AdaptiveCoder(model).encode(other))
        for model in (AdaptiveModel.from_table(table), fit_adaptive_model(table, training))
    ]
    assert num_bytes[1] < 0.9 * num_bytes[0]


def test_fit_is_reproducible() -> None:
    rng = np.random.default_rng(0)
    images = [laplace(np.full((3, 9, 11), 1.5), rng) for _ in range(2)]
    first, second = (fit(images).to_arrays() for _ in range(2))
    assert all(np.array_equal(first[name], second[name]) for name in first)
