"""bls/measures/nlp.py"""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from bls.measures.luma import luma
from bls.transforms.layers import mirror_pad

_BURT_ADELSON = (0.05, 0.25, 0.4, 0.25, 0.05)


# Learned by the authors, one entry per pyramid level, finest first: the constant sigma, and the weights of F
# that are not zero: (above, left, right, right but one, below) the centre of its 5x5 matrix.
_SIGMA = (0.0248, 0.0185, 0.0179, 0.0191, 0.0220, 0.2782)
_NEIGHBOUR_WEIGHTS = (
    (0.1011, 0.1493, 0.1460, 0.0072, 0.1015),
    (0.0757, 0.1986, 0.1846, 0.0, 0.0837),
    (0.0477, 0.2138, 0.2243, 0.0, 0.0467),
    (0.0, 0.2503, 0.2616, 0.0, 0.0),
    (0.0, 0.2598, 0.2552, 0.0, 0.0),
    (0.0, 0.2215, 0.0717, 0.0, 0.0),
)


def nlp(x: Float[Tensor, "b c h w"], x_hat: Float[Tensor, "b c h w"]) -> Float[Tensor, " b"]:
    """Return the NLP distance of the images' luma: the mean over six levels of the root mean square difference.

    Images of any size work; below 17 pixels the coarse levels repeat the same few samples.
    """
    with torch.autocast(x.device.type, enabled=False):
        levels = normalized_laplacian_pyramid(luma(full_precision(x)))
        levels_hat = normalized_laplacian_pyramid(luma(full_precision(x_hat)))
        # A norm, not the root of a mean: its gradient at zero difference is zero, theirs infinite.
        distances = [
            torch.linalg.vector_norm(level - level_hat, dim=(1, 2, 3)) / level[0].numel() ** 0.5
            for level, level_hat in zip(levels, levels_hat, strict=True)
        ]
    return torch.stack(distances).mean(0)


def laplacian_pyramid(x: Float[Tensor, "b 1 h w"], *, num_levels: int) -> list[Tensor]:
    """Split images into the differences of successive low-pass images, finest first, and the last low-pass image."""
    low_pass = [x]
    for _ in range(num_levels - 1):
        low_pass.append(_downsample(low_pass[-1]))
    return [fine - _upsample(coarse, like=fine) for fine, coarse in pairwise(low_pass)] + low_pass[-1:]


def normalized_laplacian_pyramid(x: Float[Tensor, "b 1 h w"]) -> list[Tensor]:
    """Divide a Laplacian pyramid's samples by a weighted sum of their neighbours' magnitudes: `L / (sigma + |L| * F)`.

    As the authors', the convolution with F is a strict one (F is flipped) and sees zeros outside the image.
    """
    pyramid = laplacian_pyramid(x, num_levels=len(_SIGMA))
    return [
        level / (sigma + functional.conv2d(level.abs(), _neighbour_filter(weights).flip(-1, -2).to(level), padding=2))
        for level, sigma, weights in zip(pyramid, _SIGMA, _NEIGHBOUR_WEIGHTS, strict=True)
    ]


def _neighbour_filter(weights: tuple[float, float, float, float, float]) -> Float[Tensor, "1 1 5 5"]:
    above, left, right, right_but_one, below = weights
    f = torch.zeros(1, 1, 5, 5, dtype=torch.float64)
    f[..., 1, 2], f[..., 3, 2] = above, below
    f[..., 2, 1], f[..., 2, 3], f[..., 2, 4] = left, right, right_but_one
    return f


def _low_pass_filter(like: Tensor) -> Float[Tensor, "1 1 5 5"]:
    taps = torch.tensor(_BURT_ADELSON, dtype=torch.float64)
    return torch.outer(taps, taps)[None, None].to(like)


def _downsample(x: Float[Tensor, "b 1 h w"]) -> Tensor:
    height, width = x.shape[-2:]
    # One row mirrored is that row again and again, so a side of 1 may be taken as 2: every other sample is kept.
    x = x.expand(-1, -1, max(height, 2), max(width, 2))
    return functional.conv2d(mirror_pad(x, 2, 2), _low_pass_filter(x), stride=2)


def _upsample(x: Tensor, *, like: Tensor) -> Tensor:
    even = [(side + 1) % 2 for side in like.shape[-2:]]
    kernel = 4 * _low_pass_filter(x)
    return functional.conv_transpose2d(mirror_pad(x, 1, 1), kernel, stride=2, padding=4, output_padding=even)


def full_precision(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
