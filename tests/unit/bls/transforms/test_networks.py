"""The transforms: sizes, boundaries, filters, adjointness, constraints."""

import numpy as np
import pytest
import torch

from bls.training.constraints import DCTFilters, apply_constraints, dct_basis, parameterize_by_dct
from bls.transforms.gdn import GDN
from bls.transforms.layers import FEW_CHANNELS, Downsample, Upsample, mirror_pad
from bls.transforms.networks import AnalysisTransform, SynthesisTransform, TransformConfig

SMALL = TransformConfig(num_filters=8)


@pytest.mark.parametrize("config", [SMALL, TransformConfig(num_filters=5, channels=1, latent_gdn=True)])
@pytest.mark.parametrize(("height", "width"), [(16, 16), (16, 48), (64, 32)])
def test_latents_have_a_sixteenth_of_the_sides(config: TransformConfig, height: int, width: int) -> None:
    x = torch.rand(2, config.channels, height, width)
    y = AnalysisTransform(config)(x)
    assert y.shape == (2, config.num_filters, height // 16, width // 16)
    assert SynthesisTransform(config)(y).shape == x.shape


def test_gdn_at_the_latents_is_a_choice() -> None:
    with_gdn, without = (TransformConfig(num_filters=4, latent_gdn=value) for value in (True, False))
    assert isinstance(AnalysisTransform(with_gdn)[-1], GDN) and isinstance(SynthesisTransform(with_gdn)[0], GDN)
    assert isinstance(AnalysisTransform(without)[-1], Downsample)
    assert isinstance(SynthesisTransform(without)[0], Upsample)


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (5, 4)])
def test_mirror_padding_repeats_the_edge_as_numpy_does(shape: tuple[int, int]) -> None:
    x = torch.rand(1, 2, *shape)
    before, after = 1, min(shape)
    expected = np.pad(x.numpy(), ((0, 0), (0, 0), (before, after), (before, after)), mode="symmetric")
    np.testing.assert_array_equal(mirror_pad(x, before, after).numpy(), expected)


@pytest.mark.parametrize("size", [5, 9])
def test_dct_is_orthonormal_and_invertible(size: int) -> None:
    basis = dct_basis(size)
    torch.testing.assert_close(basis @ basis.T, torch.eye(size), atol=1e-5, rtol=0)
    filters, dct = torch.randn(3, 2, size, size), DCTFilters(size)
    torch.testing.assert_close(dct(dct.right_inverse(filters)), filters, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("channels", [1, 3, FEW_CHANNELS])
@pytest.mark.parametrize(("size", "stride"), [(9, 4), (5, 2)])
def test_upsampling_is_the_adjoint_of_downsampling(size: int, stride: int, channels: int) -> None:
    """<down(x), y> = <x, up(y)> where no boundary is in reach."""
    down, up = Downsample(channels, 4, size, stride), Upsample(4, channels, size, stride)
    with torch.no_grad():
        up.weight.copy_(down.weight)
        for layer in (down, up):
            assert layer.bias is not None
            layer.bias.zero_()
    x, y = torch.zeros(1, channels, 12 * stride, 12 * stride), torch.zeros(1, 4, 12, 12)
    inside = slice(4 * stride, 8 * stride)
    x[:, :, inside, inside].normal_()
    y[:, :, 4:8, 4:8].normal_()
    torch.testing.assert_close((down(x) * y).sum(), (x * up(y)).sum(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("size", "stride"), [(9, 4), (5, 2)])
def test_few_channels_are_upsampled_like_many(size: int, stride: int) -> None:
    few, many = Upsample(4, 3, size, stride), Upsample(4, FEW_CHANNELS, size, stride)
    with torch.no_grad():
        assert many.bias is not None and few.bias is not None
        few.weight.copy_(many.weight[:, :3])
        few.bias.copy_(many.bias[:3])
    y = torch.randn(2, 4, 5, 7)
    torch.testing.assert_close(few(y), many(y)[:, :3], atol=1e-5, rtol=1e-5)


def test_the_receptive_field_of_a_latent_is_57_pixels() -> None:
    analysis = AnalysisTransform(TransformConfig(num_filters=4))
    x = torch.rand(1, 3, 160, 160, requires_grad=True)
    analysis(x)[0, 0, 5, 5].backward()
    assert x.grad is not None
    rows = x.grad[0].abs().sum((0, 2)).nonzero().flatten()
    assert (rows.min().item(), rows.max().item()) == (80 - 27, 80 + 15 + 14)
    assert len(rows) == 57


def test_dct_parameterisation_changes_no_output() -> None:
    analysis, x = AnalysisTransform(SMALL), torch.rand(1, 3, 32, 32)
    before = analysis(x)
    parameterize_by_dct(analysis)
    torch.testing.assert_close(analysis(x), before, atol=1e-4, rtol=1e-3)


def test_constraints_give_every_filter_norm_one() -> None:
    config = TransformConfig(num_filters=8, latent_gdn=True, unit_norm=True)
    for transform in (AnalysisTransform(config), SynthesisTransform(config)):
        parameterize_by_dct(transform)
        apply_constraints(transform, config)
        for layer in transform:
            if isinstance(layer, Downsample | Upsample):
                norms = layer.weight.square().sum((1, 2, 3))
                torch.testing.assert_close(norms, torch.ones_like(norms))


@pytest.mark.parametrize("settings", [{"channels": 2}, {"num_filters": 0}, {"unit_norm": True, "latent_gdn": False}])
def test_an_impossible_configuration_is_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"expected|set latent_gdn"):
        TransformConfig(**settings)  # type: ignore[arg-type]
