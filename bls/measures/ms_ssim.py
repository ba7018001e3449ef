"""MS-SSIM of images of any size, in strips of rows: bounded memory, and each strip stays in the cache.

Z. Wang, E. P. Simoncelli, A. C. Bovik, "Multiscale structural similarity for image quality assessment" (Asilomar 2003).
Windows, boundaries and the 2x2 means between the scales are those of the `pytorch_msssim` package, which training
uses, so the values are the same: means of windows wholly inside the image; an odd side gets a zero before it is halved.

Letters in shapes: c channels, h and w rows and columns.
"""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor
from torch.nn import functional

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
WINDOW = 11
SIGMA = 1.5
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
STRIP_NUM_SAMPLES = 2**17
"""Samples of a strip: half a megabyte of each of the few arrays that it needs."""


def ms_ssim_255(x: Shaped[np.ndarray, "h w *c"], x_hat: Shaped[np.ndarray, "h w *c"]) -> float:
    """Return the MS-SSIM of two images of 161 pixels a side or more, samples in 0..255, the mean over channels."""
    scale, scale_hat = _planes(x), _planes(x_hat)
    factors = []
    for level, weight in enumerate(SCALE_WEIGHTS):
        is_last = level == len(SCALE_WEIGHTS) - 1
        similarity, contrast = _means(scale, scale_hat)
        factors.append((similarity if is_last else contrast).relu() ** weight)
        if not is_last:
            scale, scale_hat = _halve(scale), _halve(scale_hat)
    return float(torch.stack(factors).prod(0).mean())


def _planes(x: Shaped[np.ndarray, "h w *c"]) -> Shaped[Tensor, "c h w"]:
    x = x.reshape(*x.shape[:2], -1)
    return torch.from_numpy(x if x.flags.writeable else x.copy()).permute(2, 0, 1)  # torch takes no others


def _means(x: Shaped[Tensor, "c h w"], x_hat: Shaped[Tensor, "c h w"]) -> tuple[Tensor, Tensor]:
    """Return SSIM and its contrast-structure term, each the mean over the windows of a channel."""
    window = torch.exp(-((torch.arange(WINDOW) - WINDOW // 2) ** 2) / (2 * SIGMA**2))
    window /= window.sum()
    height, width = x.shape[1] - WINDOW + 1, x.shape[2] - WINDOW + 1
    sums = torch.zeros(2, len(x), dtype=torch.float64)
    for rows in _strips(height, len(x) * width):
        inside = slice(rows.start, rows.stop + WINDOW - 1)
        a, b = x[:, inside].float(), x_hat[:, inside].float()
        mean_a, mean_b, product, squares = _filter(torch.cat((a, b, a * b, a * a + b * b)), window).chunk(4)
        means_product, means_squares = mean_a * mean_b, mean_a.square() + mean_b.square()
        contrast = (2 * (product - means_product) + C2) / (squares - means_squares + C2)
        similarity = contrast * (2 * means_product + C1) / (means_squares + C1)
        sums += torch.stack((similarity, contrast)).sum((2, 3), dtype=torch.float64)
    similarity, contrast = sums / (height * width)
    return similarity, contrast


def _filter(x: Shaped[Tensor, "c h w"], window: Tensor) -> Tensor:
    """Filter rows and columns of every channel with a window, without padding."""
    x = x[None].contiguous(memory_format=torch.channels_last)
    for shape in ((1, WINDOW), (WINDOW, 1)):
        x = functional.conv2d(x, window.view(1, 1, *shape).expand(x.shape[1], 1, *shape), groups=x.shape[1])
    return x[0]


def _halve(x: Shaped[Tensor, "c h w"]) -> Tensor:
    """Return the means of blocks of 2 x 2."""
    pad_rows, pad_columns = x.shape[1] % 2, x.shape[2] % 2
    halved = torch.empty(len(x), (x.shape[1] + pad_rows) // 2, (x.shape[2] + pad_columns) // 2)
    for rows in _strips(halved.shape[1], len(x) * x.shape[2] * 2):
        first = 2 * rows.start - pad_rows
        strip = functional.pad(
            x[:, max(first, 0) : 2 * rows.stop - pad_rows].float(), (pad_columns, 0, max(-first, 0), 0)
        )
        halved[:, rows] = functional.avg_pool2d(strip, 2)
    return halved


def _strips(height: int, row_num_samples: int) -> Iterator[slice]:
    num_rows = max(STRIP_NUM_SAMPLES // row_num_samples, 1)
    for start in range(0, height, num_rows):
        yield slice(start, min(start + num_rows, height))


MS_SSIM_MIN_SIDE = 161
"""MS-SSIM halves the image four times and then needs one whole window of 11 pixels: (11 - 1) * 2**4 < side."""
