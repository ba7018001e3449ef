"""Small networks for tests: linear transform codes of random fields, unfitted but complete."""

import torch

from bls.ladder import QualityRange, lmbda_of
from bls.network import FittedNetwork
from bls.training.finish import make_fitted_network
from bls.training.model import Model
from bls.training.starts.klt import initialize_from_klt
from bls.transforms.networks import TransformConfig
from tests.images import random_fields


def small_network(
    low: float = 4, high: float | None = None, *, num_filters: int = 12, channels: int = 3, seed: int = 0
) -> FittedNetwork:
    """Return a network that codes at a quality, or at a range of them; `seed` decides its weights."""
    torch.manual_seed(seed)
    qualities = QualityRange(low, low if high is None else high)
    x = random_fields(8, 64, seed=seed)[:, :channels]
    model = Model(TransformConfig(num_filters=num_filters, channels=channels), qualities)
    initialize_from_klt(model, x, lmbda=lmbda_of(qualities.high))
    return make_fitted_network(model, x.split(2), training={})
