from dataclasses import replace

import numpy as np
import pytest

from bls.entropy.adaptive.coder import AdaptiveCoder
from bls.entropy.adaptive.fitting import fit_adaptive_model
from bls.entropy.adaptive.model import AdaptiveModel
from bls.entropy.mixed import coder as mixed_coder
from bls.entropy.mixed.coder import MixedCoder
from bls.entropy.mixed.fitting import fit_mixed_model
from bls.entropy.mixed.model import FIRST_COUNT, PLACES, SUM_FRACTION_BITS, MixedModel
from bls.entropy.table import ProbabilityTable

BELOW_RIGHT = (1, 1)


def image(seed: int, *, side: int = 24) -> np.ndarray:
    """Return symbols of three channels: noise, then its copy a step above left with a little noise, then a ramp."""
    rng = np.random.default_rng(seed)
    noise = rng.laplace(scale=3, size=(side + 1, side + 1)).round()
    copied = noise[1:, 1:] + rng.integers(-1, 2, size=(side, side))
    ramp = np.cumsum(rng.normal(size=(side, side)), axis=1) + 4 * rng.normal(size=(side, 1))
    return np.stack([noise[:-1, :-1], copied, ramp.round()]).astype(np.int32)


def fit(images: list[np.ndarray]) -> tuple[AdaptiveModel, MixedModel]:
    low, high = min(i.min() for i in images), max(i.max() for i in images)
    flat = [np.concatenate([i[c].ravel() for i in images]) for c in range(3)]
    counts = [np.bincount(values - low, minlength=high - low + 1) for values in flat]
    adaptive = fit_adaptive_model(ProbabilityTable.from_probabilities(np.stack(counts).astype(float), int(low)), images)
    return adaptive, fit_mixed_model(adaptive, images)


@pytest.fixture(scope="module")
def fitted() -> tuple[AdaptiveModel, MixedModel]:
    return fit([image(seed) for seed in range(12)])


def test_value_is_taken_from_where_it_was_copied_to(fitted: tuple[AdaptiveModel, MixedModel]) -> None:
    _, model = fitted
    weights = model.value_weights[1] / (1 << SUM_FRACTION_BITS)
    best = int(np.argmax(np.abs(weights)))
    assert PLACES[model.value_places[1, best]] == BELOW_RIGHT and model.value_sources[1, best] == 0
    assert 0.8 < weights[best] < 1.05
    assert np.abs(np.delete(weights, best)).max() < 0.1


def test_ramp_is_predicted_by_its_left_neighbour(fitted: tuple[AdaptiveModel, MixedModel]) -> None:
    _, model = fitted
    assert model.value_neighbour_weights[2, 0] > 0.7 * (1 << SUM_FRACTION_BITS)


def test_other_symbols_of_the_kind_take_far_fewer_bits(fitted: tuple[AdaptiveModel, MixedModel]) -> None:
    adaptive, model = fitted
    other = image(99)
    assert len(MixedCoder(adaptive, model).encode(other)) < 0.75 * len(AdaptiveCoder(adaptive).encode(other))


def test_weights_learnt_in_training_help(fitted: tuple[AdaptiveModel, MixedModel]) -> None:
    adaptive, model = fitted
    other = image(99)
    untrained = np.zeros(model.mixer_weights.size, np.int64)
    without = replace(model, mixer_weights=np.zeros_like(model.mixer_weights))
    assert len(MixedCoder(adaptive, model).encode(other)) < len(MixedCoder(adaptive, without).encode(other))
    mixed_coder.learn(other, adaptive, model, untrained, mixed_coder.LEARNING_SHIFT)
    assert untrained.any()


def test_first_probabilities_are_how_decisions_fell(fitted: tuple[AdaptiveModel, MixedModel]) -> None:
    adaptive, model = fitted
    counts = np.zeros(mixed_coder.first_states(3)[-1], np.uint64)
    for seed in range(12):
        mixed_coder.count_decisions(image(seed), adaptive, model, counts)
    start, stop = mixed_coder.first_states(3)[3:5]
    yes, no = (counts[start:stop] >> np.uint64(32)).astype(int), (counts[start:stop] & np.uint64(2**32 - 1)).astype(int)
    often = yes + no > 50 * FIRST_COUNT
    assert often.sum() >= 3
    measured = yes[often] / (yes + no)[often]
    assert np.abs(model.by_total.ravel()[often] / 65536 - measured).max() < 0.005


@pytest.mark.parametrize("side", [1, 3])
def test_little_to_fit_to_is_enough(side: int) -> None:
    images = [image(0, side=side)]
    adaptive, model = fit(images)
    payload = MixedCoder(adaptive, model).encode(images[0])
    assert np.array_equal(MixedCoder(adaptive, model).decode(payload, images[0].shape), images[0])


def test_equal_symbols_give_equal_models() -> None:
    (_, a), (_, b) = (fit([image(3)]) for _ in range(2))
    assert all(np.array_equal(array, getattr(b, name)) for name, array in a.to_arrays().items())
