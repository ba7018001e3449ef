"""A small bundle for tests: linear transform codes of random fields, unfitted but complete."""

import torch

from bls.bundle import LMBDAS, FittedModel
from bls.training.finish import make_fitted_model
from bls.training.klt import initialize_from_klt
from bls.training.model import Model
from bls.transforms.networks import TransformConfig
from tests.images import random_fields


def small_model(quality: int = 4, *, num_filters: int = 12, channels: int = 3, seed: int = 0) -> FittedModel:
    """Return a model that codes; `seed` decides its weights."""
    torch.manual_seed(seed)
    lmbda = LMBDAS[quality]
    x = random_fields(8, 64, seed=seed)[:, :channels]
    model = Model(TransformConfig(num_filters=num_filters, channels=channels))
    initialize_from_klt(model, x, lmbda=lmbda)
    return make_fitted_model(model, x.split(2), quality=quality, lmbda=lmbda, training={})
