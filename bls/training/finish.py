"""From a trained model to a network that codes: what coders start from, and thumbnails, are fitted to its latents."""

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bls.entropy.adaptive.fitting import fit_adaptive_model
from bls.entropy.coders import StartingStates
from bls.entropy.mixed.fitting import fit_mixed_model
from bls.entropy.table import ProbabilityTable
from bls.ladder import QualityRange, index_of
from bls.network import FittedNetwork, TransformWeights
from bls.training.density import Density
from bls.training.model import Model
from bls.training.thumbnails import block_means, with_thumbnails
from bls.transforms.quantization import quantize

STATES_SPACING = 0.5
"""Largest distance, in qualities, between two points at which the coders' first states are stored."""


@torch.no_grad()
def make_fitted_network(
    model: Model,
    batches: Iterable[Float[Tensor, "b c h w"]],
    *,
    training: Mapping[str, Any],
    states_spacing: float = STATES_SPACING,
) -> FittedNetwork:
    """Round the weights to what a bundle stores, and fit density, coders and thumbnails to the latents these give.

    `batches` are whole training images, best some hundred: they are what the integers of the coders are made from.
    """
    weights = TransformWeights.of(model.config, model.analysis, model.synthesis)
    gains = model.gains.stored()
    analysis, _ = weights.transforms()
    density = Density(model.config.latents, momentum=1.0)
    latents: list[Tensor] = []
    means: list[Tensor] = []
    for x in batches:
        y = analysis(x.to("cpu", torch.float32))
        density.update(y)
        latents.extend(y)
        means.extend(block_means(x.to("cpu", torch.float32)))
    states = []
    for quality in _points(model.qualities, states_spacing):
        gain = torch.from_numpy(gains.at(index_of(quality)))
        symbols = [quantize(y * gain[:, None, None]).to(torch.int32).numpy() for y in latents]
        states.append(_fit_states(index_of(quality), density, gain, symbols))
    network = FittedNetwork(model.qualities, weights, gains, states, training)
    return with_thumbnails(network, zip(latents, means, strict=True))


def _points(qualities: QualityRange, spacing: float) -> list[float]:
    """Return the middles of equal parts of a range: no quality is further than half a part from one."""
    edges = qualities.spread(spacing)
    return edges if len(edges) == 1 else [(low + high) / 2 for low, high in pairwise(edges)]


def _fit_states(index: int, density: Density, gain: Float[Tensor, " c"], symbols: list[np.ndarray]) -> StartingStates:
    probabilities, minimum = density.probabilities(gain)
    table = ProbabilityTable.from_probabilities(probabilities.cpu().numpy(), minimum)
    adaptive = fit_adaptive_model(table, symbols)
    return StartingStates(index, table, adaptive, fit_mixed_model(adaptive, symbols))
