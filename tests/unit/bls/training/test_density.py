"""The density: it is one, it follows its latents, and its intervals have the probabilities of rounding at any gain."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from bls.training.density import LIKELIHOOD_FLOOR, SAMPLES_PER_UNIT, Density
from bls.training.noise import add_uniform_noise
from bls.transforms.quantization import quantize


def _laplacian(scale: float, size: tuple[int, int, int, int] = (64, 2, 32, 32)) -> Tensor:
    u = torch.rand(size, generator=torch.Generator().manual_seed(0)) - 0.5
    return -scale * u.sign() * torch.log1p(-2 * u.abs().clamp_max(0.4999))


def _fitted(y: Tensor) -> Density:
    density = Density(y.shape[1])
    density.update(y)
    return density


@pytest.mark.parametrize("scale", [0.05, 1.0, 30.0])
def test_density_integrates_to_one(scale: float) -> None:
    density = _fitted(_laplacian(scale))
    assert density.histogram.min() >= 0
    # Piecewise linear, zero at both ends: the trapezoidal rule is exact.
    torch.testing.assert_close(density.histogram.sum(1) / SAMPLES_PER_UNIT, torch.ones(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(density.cumulative[:, -1], torch.ones(2), atol=1e-4, rtol=0)


@pytest.mark.parametrize("gain", [0.3, 1.0])
@pytest.mark.parametrize("scale", [0.05, 0.5, 5.0])
def test_intervals_have_the_probabilities_of_rounding(scale: float, gain: float) -> None:
    y = _laplacian(scale)
    density, gains = _fitted(y), torch.tensor([gain, 0.8 * gain])
    probabilities, minimum = density.probabilities(gains)
    symbols = quantize(y * gains[:, None, None])
    for n in range(-3, 4):
        frequency = (symbols == n).float().mean((0, 2, 3))
        torch.testing.assert_close(probabilities[:, n - minimum].float(), frequency, atol=4e-3, rtol=0)
        at = density(torch.full((1, 2, 1, 1), float(n)), gains[None, :, None, None])[0, :, 0, 0]
        torch.testing.assert_close(at, probabilities[:, n - minimum].float().clamp_min(LIKELIHOOD_FLOOR))
    np.testing.assert_allclose(probabilities.sum(1).numpy(), 1, atol=1e-12)


def test_a_smaller_gain_saves_its_logarithm_where_quantisation_is_fine() -> None:
    y = _laplacian(20.0)
    density, gain = _fitted(y), torch.full((1, 2, 1, 1), 0.25)
    saved = density.bits(y).mean() - density.bits(y * gain, gain).mean()
    assert saved.item() == pytest.approx(2, abs=0.02)


@pytest.mark.parametrize("scale", [0.3, 3.0, 20.0])
def test_relaxed_rate_against_the_rate_of_rounding(scale: float) -> None:
    """Figure 4 of the paper: a small positive bias at coarse quantisation, gone at fine."""
    y = _laplacian(scale)
    density = _fitted(y)
    relaxed = density.bits(add_uniform_noise(y, torch.Generator().manual_seed(1))).mean().item()
    discrete = density.bits(quantize(y)).mean().item()
    assert -0.01 < relaxed - discrete < (0.15 if scale < 1 else 0.01)


def test_rate_is_the_known_entropy_of_a_laplacian() -> None:
    scale = 20.0
    y = _laplacian(scale)
    assert _fitted(y).bits(y).mean().item() == pytest.approx(math.log2(2 * math.e * scale), abs=0.02)


def test_gradient_is_the_slope_of_the_density() -> None:
    density = _fitted(_laplacian(1.0))
    y = torch.tensor([0.33, -1.27]).reshape(1, 2, 1, 1).requires_grad_()
    density(y).sum().backward()
    assert y.grad is not None
    step = 0.01
    slope = (density(y.detach() + step) - density(y.detach() - step)) / (2 * step)
    torch.testing.assert_close(y.grad, slope, atol=1e-3, rtol=1e-2)


def test_latents_outside_the_support_cost_the_floor() -> None:
    density = _fitted(_laplacian(0.1))
    assert density(torch.full((1, 2, 1, 1), 1e6)).max().item() == LIKELIHOOD_FLOOR


def test_support_widens_and_keeps_the_density() -> None:
    density = Density(1, half_range=4)
    narrow, wide = torch.full((1, 1, 8, 8), 1.0), torch.full((1, 1, 8, 8), 100.0)
    density.update(narrow)
    density.update(wide)
    assert density.half_range >= 101
    torch.testing.assert_close(density(narrow), torch.full_like(narrow, 0.5))
    torch.testing.assert_close(density(wide), torch.full_like(wide, 0.5))


def test_running_average_forgets_at_its_momentum() -> None:
    density = Density(1, momentum=0.5)
    for value in (0.0, 0.0, 3.0):
        density.update(torch.full((1, 1, 4, 4), value))
    assert density(torch.full((1, 1, 1, 1), 3.0)).item() == pytest.approx(0.5)


def test_a_loaded_state_brings_its_own_support() -> None:
    density = _fitted(_laplacian(30.0))
    other = Density(2)
    other.load_state_dict(density.state_dict())
    assert other.half_range == density.half_range
    y = _laplacian(5.0, (1, 2, 4, 4))
    torch.testing.assert_close(other(y), density(y))
