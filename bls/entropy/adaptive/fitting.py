"""Fit what the adaptive coder starts from to training symbols.

Weights of the activity: those under which the magnitudes are likeliest, each exponentially distributed with its
activity as mean. First probabilities: how the training symbols' decisions fell, per channel and context; where these
are few, how they fell in this context of all channels; where these are few, in this channel; at the end, what the
density says.

Letters in shapes: c channels, h and w rows and columns of latents, n sampled positions, f features, k contexts,
d decisions.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float32, Float64, Int32, UInt16, UInt64

from bls.entropy.adaptive.coder import count_decisions
from bls.entropy.adaptive.model import NEIGHBOURS, NUM_SOURCES, AdaptiveModel, to_sixteen_bits
from bls.entropy.estimates import PRIOR_COUNT, RESTING_MAGNITUDE, fit_mean, shifted, yes_and_total
from bls.entropy.table import ProbabilityTable
from bls.entropy.tree import ACTIVITY_FRACTION_BITS, CONTEXT_STARTS, MAX_MAGNITUDE

MAX_POSITIONS = 30_000
"""Positions per channel that weights are fitted to; more positions change little."""
RANKING_STRIDE = 4
"""Factor by which fewer positions suffice to see which sources contribute most."""
QUIET_QUANTILE = 0.02
"""Part of a channel's positions, the quietest, whose activities lie in the first context."""


def fit_adaptive_model(table: ProbabilityTable, symbols: Sequence[Int32[np.ndarray, "c h w"]]) -> AdaptiveModel:
    """Return the model of these training symbols, each image's one array."""
    model = AdaptiveModel.from_table(table)
    if not symbols:
        return model
    model = _with_fitted_weights(model, symbols)
    counts = np.zeros(model.probabilities.shape, np.uint64)
    for image in symbols:
        count_decisions(image, model, counts)
    prior = model.probabilities[:, 0] / 65536
    return replace(model, probabilities=to_sixteen_bits(_smooth(counts, prior)))


def _smooth(counts: UInt64[np.ndarray, "c k d"], prior: Float64[np.ndarray, "c d"]) -> Float64[np.ndarray, "c k d"]:
    yes, total = yes_and_total(counts)
    channel = (yes.sum(1) + PRIOR_COUNT * prior) / (total.sum(1) + PRIOR_COUNT)
    context = (yes.sum(0) + PRIOR_COUNT * channel[:, None]) / (total.sum(0) + PRIOR_COUNT)
    smoothed: np.ndarray = (yes + PRIOR_COUNT * context) / (total + PRIOR_COUNT)
    return smoothed


def _with_fitted_weights(model: AdaptiveModel, symbols: Sequence[Int32[np.ndarray, "c h w"]]) -> AdaptiveModel:
    c = model.channels
    magnitudes, neighbours = _sample(model, symbols)
    weights = np.zeros((c, len(NEIGHBOURS)), np.uint16)
    offset = np.zeros(c, np.uint16)
    sources = np.zeros((c, NUM_SOURCES), np.uint16)
    source_weights = np.zeros((c, NUM_SOURCES), np.uint16)
    first = 1 + len(NEIGHBOURS)
    for channel in range(c):
        features = np.concatenate([np.ones_like(magnitudes[:1]), neighbours[channel], magnitudes[:channel]])
        target = magnitudes[channel] + RESTING_MAGNITUDE
        w = fit_mean(features[:, ::RANKING_STRIDE], target[::RANKING_STRIDE], iterations=20)
        contribution = w[first:] * magnitudes[:channel].mean(1)
        chosen = np.sort(np.argsort(-contribution, kind="stable")[:NUM_SOURCES])
        features = features[np.concatenate([np.arange(first), first + chosen])]
        integers = _in_fixed_point(fit_mean(features, target), features)
        offset[channel], weights[channel] = integers[0], integers[1:first]
        sources[channel, : len(chosen)] = chosen
        source_weights[channel, : len(chosen)] = integers[first:]
    return replace(model, neighbour_weights=weights, offset=offset, sources=sources, source_weights=source_weights)


def _in_fixed_point(
    weights: Float64[np.ndarray, " f"], features: Float32[np.ndarray, "f n"]
) -> UInt16[np.ndarray, " f"]:
    """Round weights, scaled so that the quiet quantile of activities lies half an octave below the second context."""
    quiet = np.quantile(weights @ features, QUIET_QUANTILE)
    unit = CONTEXT_STARTS[0] / np.sqrt(2) * (1 << ACTIVITY_FRACTION_BITS) / quiet
    integers: np.ndarray = np.minimum(np.rint(weights * unit), 65535)
    return integers.astype(np.uint16)


def _sample(
    model: AdaptiveModel, symbols: Sequence[Int32[np.ndarray, "c h w"]]
) -> tuple[Float32[np.ndarray, "c n"], Float32[np.ndarray, "c 6 n"]]:
    """Return magnitudes at evenly spread positions, and those of their neighbours."""
    stride = max(1, sum(image[0].size for image in symbols) // MAX_POSITIONS)
    own, around = [], []
    for image in symbols:
        distance = np.abs(image.astype(np.int64) - model.mode[:, None, None])
        magnitude = np.minimum(distance, MAX_MAGNITUDE).astype(np.float32)
        own.append(magnitude.reshape(len(image), -1)[:, ::stride])
        around.append(shifted(magnitude, NEIGHBOURS)[:, :, ::stride])
    return np.concatenate(own, 1), np.concatenate(around, 2)
