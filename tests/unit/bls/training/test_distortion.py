from itertools import pairwise

import numpy as np
import pytest
import pytorch_msssim
import scipy.ndimage
import scipy.signal
import torch
from numpy.typing import NDArray
from skimage import data
from torch import Tensor

from bls.measures.nlp import laplacian_pyramid, nlp, normalized_laplacian_pyramid
from bls.training import distortion
from bls.training.distortion import Distortion

Array = NDArray[np.float64]

BURT_ADELSON = np.outer([0.05, 0.25, 0.4, 0.25, 0.05], [0.05, 0.25, 0.4, 0.25, 0.05])
SIGMA = [0.0248, 0.0185, 0.0179, 0.0191, 0.0220, 0.2782]
# The rows of the authors' F, without those of zeros.
F_ROWS: list[list[list[float]]] = [
    [[0, 0, 0.1011, 0, 0], [0, 0.1493, 0, 0.1460, 0.0072], [0, 0, 0.1015, 0, 0]],
    [[0, 0, 0.0757, 0, 0], [0, 0.1986, 0, 0.1846, 0], [0, 0, 0.0837, 0, 0]],
    [[0, 0, 0.0477, 0, 0], [0, 0.2138, 0, 0.2243, 0], [0, 0, 0.0467, 0, 0]],
    [[0, 0, 0, 0, 0], [0, 0.2503, 0, 0.2616, 0], [0, 0, 0, 0, 0]],
    [[0, 0, 0, 0, 0], [0, 0.2598, 0, 0.2552, 0], [0, 0, 0, 0, 0]],
    [[0, 0, 0, 0, 0], [0, 0.2215, 0, 0.0717, 0], [0, 0, 0, 0, 0]],
]


def reference_downsample(x: Array) -> Array:
    padded = np.pad(x, 2, mode="symmetric")
    return np.asarray(scipy.signal.convolve2d(padded, BURT_ADELSON, mode="valid"))[::2, ::2]


def reference_upsample(x: Array, height: int, width: int) -> Array:
    padded = np.pad(x, 1, mode="edge")
    spread = np.zeros((2 * padded.shape[0], 2 * padded.shape[1]))
    spread[::2, ::2] = 4 * padded
    return np.asarray(scipy.signal.convolve2d(spread, BURT_ADELSON, mode="same"))[2 : 2 + height, 2 : 2 + width]


def reference_normalized_laplacian_pyramid(x: Array) -> list[Array]:
    low_pass = [x]
    for _ in range(5):
        low_pass.append(reference_downsample(low_pass[-1]))
    pyramid = [fine - reference_upsample(coarse, *fine.shape) for fine, coarse in pairwise(low_pass)]
    return [
        level / (sigma + scipy.signal.convolve2d(np.abs(level), np.pad(rows, ((1, 1), (0, 0))), mode="same"))
        for level, sigma, rows in zip([*pyramid, low_pass[-1]], SIGMA, F_ROWS, strict=True)
    ]


def reference_nlp(x: Array, x_hat: Array) -> float:
    levels, levels_hat = map(reference_normalized_laplacian_pyramid, (x, x_hat))
    return float(np.mean([np.sqrt(np.mean((a - b) ** 2)) for a, b in zip(levels, levels_hat, strict=True)]))


def random_images(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def photograph() -> Tensor:
    return torch.tensor(data.astronaut()[:192, 150:342] / 255).permute(2, 0, 1)[None]


def blurred(x: Tensor, sigma: float) -> Tensor:
    return torch.tensor(scipy.ndimage.gaussian_filter(x.numpy(), (0, 0, sigma, sigma)))


def test_mse_of_an_offset_is_its_square() -> None:
    x = random_images(2, 3, 8, 9)
    torch.testing.assert_close(distortion.mse_255(x, x + 3 / 255).tolist(), [9.0, 9.0])


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 3), (16, 17), (64, 64), (97, 130)])
def test_pyramid_is_the_authors(size: tuple[int, int]) -> None:
    x = random_images(1, 1, *size)
    levels = normalized_laplacian_pyramid(x)
    expected = reference_normalized_laplacian_pyramid(x[0, 0].numpy())
    for level, expected_level in zip(levels, expected, strict=True):
        np.testing.assert_allclose(level[0, 0].numpy(), expected_level, rtol=1e-9, atol=1e-12)


def test_laplacian_pyramid_of_a_constant_is_its_low_pass_alone() -> None:
    *details, low_pass = laplacian_pyramid(torch.full((1, 1, 50, 71), 0.7), num_levels=6)
    assert [tuple(level.shape[-2:]) for level in [*details, low_pass]] == [
        (50, 71), (25, 36), (13, 18), (7, 9), (4, 5), (2, 3)
    ]  # fmt: skip
    for level in details:
        torch.testing.assert_close(level, torch.zeros_like(level), atol=1e-6, rtol=0)
    torch.testing.assert_close(low_pass, torch.full_like(low_pass, 0.7))


def test_nlp_of_two_constants_by_hand() -> None:
    # One pixel: five levels of detail are 0, the last is v / sigma, without neighbours.
    x = torch.full((1, 1, 1, 1), 0.75, dtype=torch.float64)
    x_hat = torch.full((1, 1, 1, 1), 0.25, dtype=torch.float64)
    torch.testing.assert_close(nlp(x, x_hat).item(), 0.5 / 0.2782 / 6)


def test_nlp_is_of_each_image_of_the_batch() -> None:
    x, x_hat = random_images(3, 1, 40, 33), random_images(3, 1, 40, 33, seed=1)
    expected = [reference_nlp(a.numpy(), b.numpy()) for a, b in zip(x[:, 0], x_hat[:, 0], strict=True)]
    torch.testing.assert_close(nlp(x, x_hat).tolist(), expected)


def test_nlp_of_rgb_is_that_of_its_luma() -> None:
    x, x_hat = random_images(2, 3, 40, 33), random_images(2, 3, 40, 33, seed=1)
    y, y_hat = (0.299 * z[:, :1] + 0.587 * z[:, 1:2] + 0.114 * z[:, 2:] for z in (x, x_hat))
    torch.testing.assert_close(nlp(x, x_hat), nlp(y, y_hat))


def test_ms_ssim_is_the_librarys() -> None:
    x = photograph().float()
    x_hat = blurred(x, 1.5)
    reference = pytorch_msssim.MS_SSIM(data_range=255, size_average=False, channel=3)(255 * x, 255 * x_hat)
    torch.testing.assert_close(distortion.ms_ssim(x, x_hat), 1 - reference, atol=1e-6, rtol=0)


def test_ms_ssim_names_the_smallest_side() -> None:
    x = random_images(1, 3, 160, 200)
    with pytest.raises(ValueError, match=r"images have 200x160 pixels, MS-SSIM needs 161 a side"):
        distortion.ms_ssim(x, x)
    x = random_images(1, 3, 161, 161)
    assert distortion.ms_ssim(x, x).item() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("measure", [distortion.mse_255, distortion.ms_ssim, nlp])
def test_distortion_is_zero_for_equal_images_and_grows_with_blur(measure: Distortion) -> None:
    x = photograph()
    values = [measure(x, x_hat).item() for x_hat in (x, blurred(x, 0.7), blurred(x, 1.5), blurred(x, 4))]
    assert values[0] == pytest.approx(0, abs=1e-12)
    assert values == sorted(values)
    assert len(set(values)) == 4


@pytest.mark.parametrize("measure", [distortion.mse_255, distortion.ms_ssim, nlp])
@pytest.mark.parametrize("kind", ["equal", "random", "anticorrelated", "constant"])
def test_gradient_is_finite(measure: Distortion, kind: str) -> None:
    x = random_images(2, 3, 168, 170).float()
    x_hats = {"equal": x.clone(), "random": random_images(2, 3, 168, 170, seed=1).float(), "anticorrelated": 1 - x}
    x_hat = x_hats.get(kind, torch.full_like(x, 0.5)).requires_grad_()
    measure(x, x_hat).sum().backward()
    assert x_hat.grad is not None
    assert x_hat.grad.isfinite().all()


@pytest.mark.parametrize("measure", [distortion.mse_255, nlp])
def test_gradient_is_that_of_finite_differences(measure: Distortion) -> None:
    x, x_hat = random_images(1, 3, 3, 4), random_images(1, 3, 3, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x_hat: measure(x, x_hat), x_hat)


@pytest.mark.parametrize("measure", [distortion.ms_ssim, nlp])
def test_autocast_does_not_change_the_value(measure: Distortion) -> None:
    x, x_hat = photograph().float(), blurred(photograph().float(), 1.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = measure(x, x_hat)
    assert value == measure(x, x_hat)
