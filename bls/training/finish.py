"""From a trained model to one that codes: tables from the density, the coder's initial states from training latents."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bls.bundle import FittedModel, half_precision_weights
from bls.entropy.adaptive.fitting import fit_adaptive_model
from bls.entropy.mixed.fitting import fit_mixed_model
from bls.entropy.table import ProbabilityTable
from bls.training.density import Density
from bls.training.model import Model
from bls.transforms.quantization import quantize


@torch.no_grad()
def make_fitted_model(
    model: Model,
    batches: Iterable[Float[Tensor, "b c h w"]],
    *,
    quality: int,
    lmbda: float,
    training: Mapping[str, Any],
) -> FittedModel:
    """Round the weights to what a bundle stores, and fit density and coder anew to the latents these give.

    `batches` are whole training images, best some hundred: they are what the integers of the coder are made from.
    """
    weights = half_precision_weights(model.analysis, model.synthesis)
    draft = FittedModel(quality, lmbda, model.config, weights, table=None, adaptive=None)  # type: ignore[arg-type]
    analysis, _ = draft.transforms()
    density = Density(model.config.latents, momentum=1.0)
    symbols: list[np.ndarray] = []
    for x in batches:
        y = analysis(x.to("cpu", torch.float32))
        density.update(y)
        symbols.extend(quantize(y).to(torch.int32).numpy())
    probabilities, minimum = density.probabilities()
    table = ProbabilityTable.from_probabilities(probabilities.cpu().numpy(), minimum)
    adaptive = fit_adaptive_model(table, symbols)
    mixed = fit_mixed_model(adaptive, symbols)
    return FittedModel(quality, lmbda, model.config, weights, table, adaptive, training, mixed)
