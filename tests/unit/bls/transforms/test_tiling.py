"""Tiles give what the whole image gives."""

import pytest
import torch

from bls.transforms.networks import AnalysisTransform, SynthesisTransform, TransformConfig
from bls.transforms.tiling import analyze_tiled, synthesize_tiled

CONFIG = TransformConfig(num_filters=6)


@pytest.mark.parametrize(("height", "width"), [(5, 11), (12, 4), (9, 9), (1, 13)])
@torch.no_grad()
def test_tiles_leave_no_seam(height: int, width: int) -> None:
    torch.manual_seed(0)
    analysis, synthesis = AnalysisTransform(CONFIG), SynthesisTransform(CONFIG)
    x, y = torch.rand(2, 3, 16 * height, 16 * width), torch.randn(2, 6, height, width)
    torch.testing.assert_close(analyze_tiled(analysis, x, tile=4), analysis(x), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(synthesize_tiled(synthesis, y, tile=4), synthesis(y), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_no_tile_is_larger_than_asked_for() -> None:
    sizes = []

    def transform(x: torch.Tensor) -> torch.Tensor:
        sizes.append(max(x.shape[2:]))
        return x[:, :, ::16, ::16]

    analyze_tiled(transform, torch.rand(1, 3, 160, 320), tile=3)
    assert max(sizes) <= 16 * (3 + 4)
