"""Fit what the mixing coder starts from to training symbols.

Terms of the two sums: weighted least squares over all earlier channels and places; the heaviest stay. Then the
magnitude's weights are those of the adaptive coder's activity, the likeliest. First probabilities: how the training
symbols' decisions fell. Weights of the mixer: what they have become when all training images are coded.

Letters in shapes: c channels, n sampled positions, f features, k contexts, t slots, s states.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float32, Float64, Int8, Int32, UInt64

from bls.entropy.adaptive.model import NEIGHBOURS, AdaptiveModel, to_sixteen_bits
from bls.entropy.estimates import PRIOR_COUNT, RESTING_MAGNITUDE, fit_mean, shifted, yes_and_total
from bls.entropy.mixed.coder import LEARNING_SHIFT, count_decisions, first_states, learn
from bls.entropy.mixed.model import (
    CENTRE,
    NUM_INPUTS,
    NUM_MODELS,
    NUM_TERMS,
    PLACES,
    SUM_FRACTION_BITS,
    MixedModel,
    probability_shapes,
)
from bls.entropy.tree import NUM_DECISIONS

MAX_POSITIONS = 20_000
"""Positions that the sums are fitted to: two matrices of all features' products are made from them."""
MAX_DISTANCE = 127
FIRST_WEIGHT = 1.3 / NUM_MODELS
"""Weight of every model in the mixer before it has learnt: each knows a part, together they are surer than alone."""
LEARNING_SHIFTS = (LEARNING_SHIFT + 1, LEARNING_SHIFT + 3)
"""Shifts of the mixer's updates in the passes over the training images: fast, then fine."""
RIDGE = 30.0
"""Ridge that keeps weights of rare features small; in units of a feature's sum of squares."""
MAX_STORED_WEIGHT = 2**31 - 1
OFFSETS = (*PLACES, *(offset for offset in NEIGHBOURS if offset not in PLACES))
NUM_OFFSETS = len(OFFSETS)


def fit_mixed_model(adaptive: AdaptiveModel, symbols: Sequence[Int32[np.ndarray, "c h w"]]) -> MixedModel:
    """Return the model of these training symbols, each image's one array."""
    c = adaptive.channels
    probabilities = {name: np.full(shape, 1 << 15, np.uint16) for name, shape in probability_shapes(c).items()}
    mixer_weights = np.full((c, NUM_DECISIONS, NUM_INPUTS), round(FIRST_WEIGHT * 65536), np.int32)
    mixer_weights[:, :, NUM_MODELS] = 0
    model = MixedModel(**_fit_sums(adaptive, symbols), **probabilities, mixer_weights=mixer_weights)
    starts = first_states(c)
    counts = np.zeros(starts[-1], np.uint64)
    for image in symbols:
        count_decisions(image, adaptive, model, counts)
    # The first model's states are the adaptive coder's, fitted with it.
    fitted = {
        name: to_sixteen_bits(_smooth(counts[start:stop].reshape(shape)))
        for (name, shape), start, stop in zip(probability_shapes(c).items(), starts[1:], starts[2:], strict=False)
    }
    model = replace(model, **fitted)
    weights = mixer_weights.astype(np.int64).ravel()
    for shift in LEARNING_SHIFTS:
        for image in symbols:
            learn(image, adaptive, model, weights, shift)
    stored = np.clip(weights, -MAX_STORED_WEIGHT, MAX_STORED_WEIGHT).astype(np.int32)
    return replace(model, mixer_weights=stored.reshape(mixer_weights.shape))


def _smooth(counts: UInt64[np.ndarray, "c k t"]) -> Float64[np.ndarray, "c k t"]:
    """Return how decisions fell; if they were few, in this context of all channels, then in this channel; or even.

    Models that all channels share have a first context in the place of the channel.
    """
    yes, total = yes_and_total(counts)
    first = (yes.sum(1) + PRIOR_COUNT / 8) / (total.sum(1) + PRIOR_COUNT / 4)
    second = (yes.sum(0) + PRIOR_COUNT * first.mean(0)) / (total.sum(0) + PRIOR_COUNT)
    smoothed: np.ndarray = (yes + PRIOR_COUNT * second) / (total + PRIOR_COUNT)
    return smoothed


def _fit_sums(adaptive: AdaptiveModel, symbols: Sequence[Int32[np.ndarray, "c h w"]]) -> dict[str, np.ndarray]:
    """Return the arrays of both sums."""
    c = adaptive.channels
    values = _sample(adaptive, symbols).reshape(c * NUM_OFFSETS, -1).astype(np.float32)
    arrays = {"magnitude_offset": np.zeros(c, np.int32)}
    for name in ("magnitude", "value"):
        arrays |= {
            f"{name}_neighbour_weights": np.zeros((c, len(NEIGHBOURS)), np.int16),
            f"{name}_sources": np.zeros((c, NUM_TERMS), np.uint16),
            f"{name}_places": np.zeros((c, NUM_TERMS), np.uint16),
            f"{name}_weights": np.zeros((c, NUM_TERMS), np.int16),
        }
    for channel, (chosen, weights) in enumerate(_fit_values(values)):
        _store(arrays, "value", channel, chosen, weights)
    np.abs(values, out=values)
    for channel, (chosen, weights) in enumerate(_fit_magnitudes(values)):
        arrays["magnitude_offset"][channel] = _in_fixed_point(weights[:1])[0]
        _store(arrays, "magnitude", channel, chosen, weights[1:])
    return arrays


def _store(
    arrays: dict[str, np.ndarray],
    name: str,
    channel: int,
    chosen: np.ndarray,
    weights: Float64[np.ndarray, " f"],
) -> None:
    """Write a channel's features and weights, the own channel's first, as they stand in the model."""
    integers = _in_fixed_point(weights)
    sources, places = np.divmod(chosen[len(NEIGHBOURS) :], NUM_OFFSETS)
    arrays[f"{name}_neighbour_weights"][channel] = integers[: len(NEIGHBOURS)]
    arrays[f"{name}_sources"][channel, : len(sources)] = sources
    arrays[f"{name}_places"][channel, : len(sources)] = places
    arrays[f"{name}_weights"][channel, : len(sources)] = integers[len(NEIGHBOURS) :]


def _in_fixed_point(weights: Float64[np.ndarray, " f"]) -> np.ndarray:
    integers: np.ndarray = np.clip(np.rint(weights * (1 << SUM_FRACTION_BITS)), -32767, 32767)
    return integers.astype(np.int16)


def _sample(adaptive: AdaptiveModel, symbols: Sequence[Int32[np.ndarray, "c h w"]]) -> Int8[np.ndarray, "c 11 n"]:
    """Return distances from the mode at evenly spread positions and around them."""
    stride = max(1, sum(image[0].size for image in symbols) // MAX_POSITIONS)
    samples = []
    for image in symbols:
        distance = image.astype(np.int64) - adaptive.mode[:, None, None]
        values = np.clip(distance, -MAX_DISTANCE, MAX_DISTANCE).astype(np.int8)
        samples.append(shifted(values, OFFSETS)[:, :, ::stride])
    return np.concatenate(samples, 2)


def _features(channel: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of the own channel's neighbours, and of all places in channels coded before."""
    own = channel * NUM_OFFSETS + np.array([OFFSETS.index(offset) for offset in NEIGHBOURS])
    others = np.arange(channel)[:, None] * NUM_OFFSETS + np.arange(len(PLACES))
    return own, others.ravel()


def _fit_values(values: Float32[np.ndarray, "f n"]) -> Iterator[tuple[np.ndarray, Float64[np.ndarray, " f"]]]:
    """Fit each channel's value by least squares, errors weighted less where much goes on."""
    scaled = values * np.sqrt(_quietness(values))
    products = (scaled @ scaled.T).astype(np.float64)
    products[np.diag_indices(len(products))] *= 1.001
    products[np.diag_indices(len(products))] += RIDGE
    inverse = np.empty((0, 0))  # of the products of all places in channels coded before
    for channel in range(len(values) // NUM_OFFSETS):
        own, others = _features(channel)
        features, target = np.concatenate([own, others]), channel * NUM_OFFSETS + CENTRE
        of_both = products[np.ix_(others, np.append(own, target))]
        part = inverse @ of_both
        own_weights = np.linalg.solve(
            products[np.ix_(own, own)] - of_both[:, :-1].T @ part[:, :-1],
            products[own, target] - of_both[:, :-1].T @ part[:, -1],
        )
        weights = np.concatenate([own_weights, part[:, -1] - part[:, :-1] @ own_weights])
        chosen = _heaviest(own, others, weights * np.sqrt(products.diagonal()[features]))
        yield chosen, np.linalg.solve(products[np.ix_(chosen, chosen)], products[chosen, target])
        places = channel * NUM_OFFSETS + np.arange(len(PLACES))
        inverse = _grown(inverse, products[np.ix_(others, places)], products[np.ix_(places, places)])


def _grown(
    inverse: Float64[np.ndarray, "f f"], beside: Float64[np.ndarray, "f k"], corner: Float64[np.ndarray, "k k"]
) -> Float64[np.ndarray, "g g"]:
    """Return the inverse of a symmetric matrix that has grown by some rows and columns, from its inverse before."""
    part = inverse @ beside
    new = np.linalg.inv(corner - beside.T @ part)
    grown: np.ndarray = np.block([[inverse + part @ new @ part.T, -part @ new], [-new @ part.T, new]])
    return grown


def _fit_magnitudes(magnitudes: Float32[np.ndarray, "f n"]) -> Iterator[tuple[np.ndarray, Float64[np.ndarray, " f"]]]:
    """Fit each channel's magnitude, a constant first: features chosen by least squares, then the likeliest weights."""
    quietness = _quietness(magnitudes)
    with_constant = np.concatenate([magnitudes, np.ones_like(magnitudes[:1])])
    scaled = with_constant * quietness
    products = scaled @ scaled.T
    constant = len(magnitudes)
    for channel in range(len(magnitudes) // NUM_OFFSETS):
        own, others = _features(channel)
        features, target = np.concatenate([[constant], own, others]), channel * NUM_OFFSETS + CENTRE
        weights = _non_negative_least_squares(
            products[np.ix_(features, features)],
            products[features, target] + np.float32(RESTING_MAGNITUDE) * products[features, constant],
        )
        importance = weights * np.sqrt(products.diagonal()[features])
        chosen = _heaviest(own, others, importance[1:])
        yield (
            chosen,
            fit_mean(with_constant[np.append(constant, chosen)], magnitudes[target] + np.float32(RESTING_MAGNITUDE)),
        )


def _quietness(values: Float32[np.ndarray, "f n"]) -> Float32[np.ndarray, " n"]:
    """Return positions' weights: smaller where more goes on over all channels."""
    here = np.abs(values[CENTRE::NUM_OFFSETS]).mean(0)
    quietness: np.ndarray = 1 / (here + np.float32(RESTING_MAGNITUDE))
    quietness /= quietness.mean()
    return quietness


def _heaviest(own: np.ndarray, others: np.ndarray, importance: np.ndarray) -> np.ndarray:
    """Return all own features, then the others of the greatest importance in their order."""
    chosen = np.sort(np.argsort(-np.abs(importance[len(own) :]), kind="stable")[:NUM_TERMS])
    return np.concatenate([own, others[chosen]])


def _non_negative_least_squares(
    products: Float32[np.ndarray, "f f"], target: Float32[np.ndarray, " f"], *, iterations: int = 100
) -> Float32[np.ndarray, " f"]:
    """Return non-negative weights by multiplicative updates (Lee and Seung, 2001)."""
    weights: np.ndarray = target / (products.sum(1) + np.float32(1e-6))
    for _ in range(iterations):
        weights *= target / (products @ weights + np.float32(1e-6))
    return weights
