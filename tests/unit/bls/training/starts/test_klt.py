"""The KLT start: an orthogonal transform code at the quantiser step that lmbda asks for."""

import copy
import math

import pytest
import torch

from bls.ladder import QualityRange
from bls.training.model import Model
from bls.training.starts.klt import initialize_from_klt, quantizer_step, scale_latents
from bls.transforms.networks import TransformConfig
from tests.images import random_fields

LMBDA = 0.013


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return random_fields(8, 128, seed=1)


def _started(x: torch.Tensor, *, latent_gdn: bool = False) -> Model:
    torch.manual_seed(0)
    model = Model(TransformConfig(num_filters=64, latent_gdn=latent_gdn, unit_norm=latent_gdn), QualityRange(4, 4))
    initialize_from_klt(model, x, lmbda=LMBDA)
    return model


def test_step_minimises_rate_and_distortion_at_high_resolution() -> None:
    """The rate of one sample is -log2(step) + constant, its squared error step^2 / 12; three samples a pixel."""

    def cost(step: float) -> float:
        return LMBDA * 255**2 * step**2 / 12 - 3 * math.log2(step)

    step = quantizer_step(LMBDA)
    assert cost(step) < min(cost(0.99 * step), cost(1.01 * step))


@pytest.mark.parametrize("latent_gdn", [False, True])
@torch.no_grad()
def test_start_reconstructs_far_better_than_random(x: torch.Tensor, latent_gdn: bool) -> None:
    model = _started(x, latent_gdn=latent_gdn)
    error = (model.synthesis(model.analysis(x)) - x).square().mean() / x.var()
    torch.manual_seed(0)
    random = Model(model.config, model.qualities)
    random_error = (random.synthesis(random.analysis(x)) - x).square().mean() / x.var()
    assert error < 0.2 and random_error > 0.9


@torch.no_grad()
def test_latents_are_centred_and_ordered_by_energy(x: torch.Tensor) -> None:
    y = _started(x).analysis(x)
    variance = y.var((0, 2, 3))
    assert y.mean((0, 2, 3)).abs().max() < 0.5 * variance[0].sqrt()
    assert variance[:8].mean() > 10 * variance[32:40].mean()


@torch.no_grad()
def test_warm_start_rescales_the_latents_and_nothing_else(x: torch.Tensor) -> None:
    for latent_gdn in (False, True):
        model = _started(x, latent_gdn=latent_gdn)
        scaled = copy.deepcopy(model)
        scale_latents(scaled, 0.5)
        torch.testing.assert_close(scaled.analysis(x), 2 * model.analysis(x), atol=1e-3, rtol=1e-3)
        y = model.analysis(x)
        torch.testing.assert_close(scaled.synthesis(2 * y), model.synthesis(y), atol=1e-3, rtol=1e-3)
