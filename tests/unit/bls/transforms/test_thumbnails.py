import numpy as np
import pytest
import torch
from torch.nn import functional

from bls.transforms.thumbnails import SUPPORT, ThumbnailFilter


def random_filter(*, latents: int = 5, channels: int = 3) -> ThumbnailFilter:
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((4 * channels, latents, SUPPORT, SUPPORT)).astype(np.float16)
    return ThumbnailFilter(weight, rng.standard_normal(4 * channels).astype(np.float16))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_pixel_at_16_is_the_mean_of_four_at_8(channels: int) -> None:
    y_hat = torch.randn(2, 5, 7, 4, generator=torch.Generator().manual_seed(0))
    thumbnails = random_filter(channels=channels)
    large, small = thumbnails(y_hat, scale=8), thumbnails(y_hat, scale=16)
    assert large.shape == (2, channels, 14, 8) and small.shape == (2, channels, 7, 4)
    torch.testing.assert_close(small, functional.avg_pool2d(large, 2), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("weight", "bias"),
    [
        (np.zeros((12, 5, 5, 5), np.float16), np.zeros(12, np.float16)),
        (np.zeros((12, 0, SUPPORT, SUPPORT), np.float16), np.zeros(12, np.float16)),
        (np.zeros((8, 5, SUPPORT, SUPPORT), np.float16), np.zeros(8, np.float16)),
        (np.full((12, 5, SUPPORT, SUPPORT), np.nan, np.float16), np.zeros(12, np.float16)),
        (np.zeros((12, 5, SUPPORT, SUPPORT), np.float16), np.full(12, np.inf, np.float16)),
    ],
)
def test_what_is_not_a_filter_is_refused(weight: np.ndarray, bias: np.ndarray) -> None:
    with pytest.raises(ValueError, match="write the bundle again"):
        ThumbnailFilter(weight, bias)
