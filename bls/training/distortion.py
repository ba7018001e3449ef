"""Distortions to train with: squared error, MS-SSIM, and the normalized Laplacian pyramid distance (NLP).

Each takes images in [0, 1] and returns a number for each image of the batch, differentiable, 0 for equal images. The
NLP distance is that of V. Laparra, J. Ballé, A. Berardino, E. P. Simoncelli, "Perceptual image quality assessment using
a normalized Laplacian pyramid" (HVEI 2016), with the filters and boundaries of the authors' `NLP_dist.m`.

Letters in shapes: b batch, c channels (1 or 3), h and w rows and columns.
"""

from collections.abc import Callable

import pytorch_msssim
import torch
from jaxtyping import Float
from torch import Tensor

from bls.measures.ms_ssim import MS_SSIM_MIN_SIDE
from bls.measures.nlp import (
    full_precision,
)

Distortion = Callable[[Tensor, Tensor], Tensor]


def mse_255(x: Float[Tensor, "b c h w"], x_hat: Float[Tensor, "b c h w"]) -> Float[Tensor, " b"]:
    """Return the mean squared error on the scale of 0 to 255."""
    return 255**2 * (x - x_hat).square().mean((1, 2, 3))


def ms_ssim(x: Float[Tensor, "b c h w"], x_hat: Float[Tensor, "b c h w"]) -> Float[Tensor, " b"]:
    """Return 1 - MS-SSIM (Wang, Simoncelli, Bovik, 2003), the mean over channels.

    Raises:
        ValueError: a side has fewer than 161 pixels.
    """
    height, width = x.shape[-2:]
    if min(height, width) < MS_SSIM_MIN_SIDE:
        raise ValueError(
            f"images have {width}x{height} pixels, MS-SSIM needs {MS_SSIM_MIN_SIDE} a side: "
            "train on larger crops or with another distortion"
        )
    # Variances are differences of large numbers: half precision would leave nothing of them.
    with torch.autocast(x.device.type, enabled=False):
        similarity: Tensor = pytorch_msssim.ms_ssim(
            full_precision(x), full_precision(x_hat), data_range=1, size_average=False
        )
    return 1 - similarity
