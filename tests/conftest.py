"""What tests of several modules use."""

import os
from pathlib import Path

import pytest
import torch

from bls.bundle import save_bundle
from bls.fitting import make_fitted_model
from bls.klt import initialize_from_klt
from bls.model import Model
from bls.transforms import TransformConfig
from tests.images import random_fields

# Ray generates a token in the home folder otherwise; tests must not.
os.environ.setdefault("RAY_AUTH_MODE", "disabled")


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bundle of qualities 2 and 4 with 16 filters: a transform code that was never trained, small and fast."""
    models = []
    for quality, lmbda in ((2, 0.0035), (4, 0.0130)):
        torch.manual_seed(quality)
        x = random_fields(8, 128, seed=quality)
        model = Model(TransformConfig(num_filters=16))
        initialize_from_klt(model, x, lmbda=lmbda)
        models.append(make_fitted_model(model, [x], quality=quality, lmbda=lmbda, training={}))
    folder = tmp_path_factory.mktemp("bundle")
    save_bundle(folder, models)
    return folder
