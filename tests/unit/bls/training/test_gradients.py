import pytest
import torch
from torch import nn

from bls.training.gradients import bfloat16_gradients
from bls.transforms.gdn import GDN
from bls.transforms.layers import Downsample, Upsample

ERROR = 0.01
"""Relative to the gradient's norm; one rounding to 8 bits is 0.002."""


@pytest.mark.parametrize(
    "layer",
    [
        Downsample(3, 32, 9, 4),
        Downsample(32, 48, 5, 2),
        Upsample(48, 32, 5, 2),
        Upsample(32, 3, 9, 4),
        GDN(32),
        nn.Conv2d(32, 32, 1, groups=4),
        nn.ConvTranspose2d(32, 64, 3, 2, 1, output_padding=1, groups=4),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_gradients_are_those_of_float32_but_for_rounding(layer: nn.Module) -> None:
    channels = getattr(layer, "in_channels", 32)
    x = torch.randn(2, channels, 16, 16, generator=torch.Generator().manual_seed(1), requires_grad=True)
    wanted = [x, *layer.parameters()]
    y = layer(x)
    exact = torch.autograd.grad(y, wanted, torch.ones_like(y), retain_graph=True)
    with bfloat16_gradients():
        rounded = torch.autograd.grad(y, wanted, torch.ones_like(y))
    for a, b in zip(exact, rounded, strict=True):
        assert b.dtype == torch.float32 and b.shape == a.shape
        assert (a - b).norm() < ERROR * a.norm()
    assert any(not torch.equal(a, b) for a, b in zip(exact, rounded, strict=True))


def test_nothing_is_computed_for_what_wants_no_gradient() -> None:
    layer = Upsample(32, 32, 5, 2).requires_grad_(requires_grad=False)
    x = torch.randn(1, 32, 8, 8, requires_grad=True)
    with bfloat16_gradients():
        layer(x).sum().backward()
    assert x.grad is not None and layer.weight.grad is None


def test_values_stay_in_float32() -> None:
    layer, x = nn.Conv2d(16, 16, 3), torch.randn(1, 16, 8, 8)
    with bfloat16_gradients():
        inside = layer(x)
    assert torch.equal(inside, layer(x))
