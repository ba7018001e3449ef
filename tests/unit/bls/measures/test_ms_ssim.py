"""Strips change nothing: the values are those of the package that training uses."""

import numpy as np
import pytest
import pytorch_msssim
import torch
from skimage import data

from bls.measures import ms_ssim
from bls.measures.ms_ssim import ms_ssim_255


@pytest.mark.parametrize("strip_num_samples", [1, 5_000, 2**30])
@pytest.mark.parametrize("crop", [np.s_[:161, :163], np.s_[:200, :161], np.s_[:241, :322, 0]])
def test_values_are_those_of_the_package(
    crop: tuple[slice, ...], strip_num_samples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ms_ssim, "STRIP_NUM_SAMPLES", strip_num_samples)
    x, x_hat = (image[crop] for image in data.stereo_motorcycle()[:2])
    planes = [torch.tensor(image.reshape(*image.shape[:2], -1)).permute(2, 0, 1)[None].float() for image in (x, x_hat)]
    expected = pytorch_msssim.ms_ssim(*planes, data_range=255).item()
    assert ms_ssim_255(x, x_hat) == pytest.approx(expected, abs=2e-6)


def test_opposite_images_have_none() -> None:
    x = np.random.default_rng(0).integers(0, 256, (170, 170), dtype=np.uint8)
    assert ms_ssim_255(x, 255 - x) == 0


def test_images_that_cannot_be_written_to_are_only_read() -> None:
    x = np.zeros((161, 161), np.uint8)
    x.setflags(write=False)
    assert ms_ssim_255(x, x) == pytest.approx(1)
