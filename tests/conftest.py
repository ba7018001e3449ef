"""What tests of several modules use."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from bls.bundle import save_bundle
from tests.bundles import small_network

# A busy machine is no failure.
settings.register_profile("bls", deadline=None)
settings.load_profile("bls")

# The tests' tensors are small: a second thread saves little, and waiting for it takes long on a busy machine.
torch.set_num_threads(1)

# Ray generates a token in the home folder otherwise; tests must not.
os.environ.setdefault("RAY_AUTH_MODE", "disabled")


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bundle of qualities 2 and 4 with 16 filters: a transform code that was never trained, small and fast."""
    folder = tmp_path_factory.mktemp("bundle")
    save_bundle(folder, [small_network(quality, num_filters=16) for quality in (2, 4)])
    return folder
