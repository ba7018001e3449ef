"""Rounding, and the noise that stands for it in training (Ballé et al., ICLR 2017, section 4 and figure 4)."""

import pytest
import torch

from bls.training.noise import add_uniform_noise
from bls.transforms.quantization import quantize
from tests.bundles import small_network
from tests.images import random_fields


def test_quantize_rounds_to_the_nearest_integer() -> None:
    y = torch.tensor([[[[-1.6, -0.4, 0.4, 0.6, 2.2]]]])
    assert quantize(y).flatten().tolist() == [-2, 0, 0, 1, 2]


def test_noise_is_uniform_and_follows_its_generator() -> None:
    y = torch.randn(1, 4, 64, 64, generator=torch.Generator().manual_seed(0))
    noise = add_uniform_noise(y, torch.Generator().manual_seed(1)) - y
    assert noise.abs().max() <= 0.5
    assert noise.mean().item() == pytest.approx(0, abs=0.01) and noise.var().item() == pytest.approx(1 / 12, rel=0.03)
    torch.testing.assert_close(add_uniform_noise(y, torch.Generator().manual_seed(1)) - y, noise)


def test_error_with_noise_stands_for_the_error_of_rounding() -> None:
    analysis, synthesis = small_network(6).weights.transforms()
    x = random_fields(4, 128, seed=11)
    with torch.inference_mode():
        y = analysis(x)
        exact = synthesis(y)
        rounded = (synthesis(quantize(y)) - exact).square().mean().item()
        relaxed = (synthesis(add_uniform_noise(y, torch.Generator().manual_seed(2))) - exact).square().mean().item()
    assert relaxed == pytest.approx(rounded, rel=0.05)
