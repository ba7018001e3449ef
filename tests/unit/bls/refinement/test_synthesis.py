"""The synthesis with gradients to the latents alone: the values and gradients of the transform itself."""

import pytest
import torch

from bls.refinement.synthesis import synthesize
from bls.transforms.gdn import GDN
from bls.transforms.networks import SynthesisTransform, TransformConfig


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(2, 5, 7), (1, 1, 1), (1, 1, 4)])
def test_values_and_gradients_are_those_of_the_transform(shape: tuple[int, int, int], channels: int) -> None:
    torch.manual_seed(0)
    config = TransformConfig(num_filters=20, num_latents=24, channels=channels, latent_gdn=True)
    synthesis = SynthesisTransform(config).double().requires_grad_(False)
    batch, height, width = shape
    y = torch.randn(batch, 24, height, width, dtype=torch.float64, requires_grad=True)
    expected = synthesis(y)
    found = synthesize(synthesis, y)
    torch.testing.assert_close(found, expected.float())
    direction = torch.randn_like(expected)
    (gradient,) = torch.autograd.grad((expected * direction).sum(), y)
    (found_gradient,) = torch.autograd.grad((found * direction).sum(), y)
    torch.testing.assert_close(found_gradient, gradient, rtol=1e-5, atol=1e-6)


def test_gradients_are_finite_where_a_channel_has_no_weight() -> None:
    synthesis = SynthesisTransform(TransformConfig(num_filters=16)).requires_grad_(False)
    for layer in synthesis:
        if isinstance(layer, GDN):
            layer.set_(torch.zeros(16), torch.zeros(16, 16))
    y = torch.zeros(1, 16, 2, 2, requires_grad=True)
    (gradient,) = torch.autograd.grad(synthesize(synthesis, y).sum(), y)
    assert gradient.isfinite().all()
