"""Thumbnails without the synthesis: a linear filter over the latents gives the means of the image's blocks.

A place of the latents stands for 16 x 16 pixels. The filter sees it and its neighbours, and gives the means of the four
blocks of 8 x 8 in it; their mean is that of the whole. `bls/training/thumbnails.py` fits it.

Letters in shapes: b batch, c latent channels, o image channels, f = 4 * o, hl and wl latent rows and columns, s a side
of the filter, hs and ws rows and columns of the thumbnail.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Float16
from torch import Tensor, nn

from bls.entropy.arrays import StoredArrays
from bls.transforms.layers import mirror_pad
from bls.transforms.networks import DOWNSAMPLING

Scale = Literal[16, 8]
"""Pixels in a side of the block that becomes a pixel of the thumbnail."""
SCALES: tuple[Scale, ...] = get_args(Scale)
SUPPORT = 3
"""Side of the filter, in latents."""
_BLOCKS = 2
"""Blocks of 8 pixels in a side of a latent."""


@dataclass(frozen=True)
class ThumbnailFilter(StoredArrays):
    """The filter as a bundle stores it.

    Raises:
        ValueError: the arrays do not belong together, or are not finite.
    """

    stored_name = "thumbnail filter"

    weight: Float16[np.ndarray, "f c s s"]
    bias: Float16[np.ndarray, " f"]

    def __post_init__(self) -> None:
        f, c = (*self.weight.shape, 0, 0)[:2]
        self.check_shapes({"weight": ((f, c, SUPPORT, SUPPORT), np.float16), "bias": ((f,), np.float16)})
        if not c or f not in (_BLOCKS**2, 3 * _BLOCKS**2):
            raise ValueError(f"thumbnail filter gives {f} values for {c} latents: write the bundle again")
        if not (np.isfinite(self.weight).all() and np.isfinite(self.bias).all()):
            raise ValueError("thumbnail filter is not finite: write the bundle again")

    @property
    def latents(self) -> int:
        """Channels of the latents."""
        return int(self.weight.shape[1])

    @property
    def channels(self) -> int:
        """Channels of the image."""
        return len(self.weight) // _BLOCKS**2

    def __call__(self, y_hat: Float[Tensor, "b c hl wl"], *, scale: Scale) -> Float[Tensor, "b o hs ws"]:
        """Return the means of the image's blocks of `scale` pixels a side, in [0, 1] but for errors."""
        weight, bias = torch.from_numpy(self.weight).float(), torch.from_numpy(self.bias).float()
        if scale == DOWNSAMPLING:
            weight, bias = weight.unflatten(0, (-1, _BLOCKS**2)).mean(1), bias.unflatten(0, (-1, _BLOCKS**2)).mean(1)
        margin = SUPPORT // 2
        means = nn.functional.conv2d(mirror_pad(y_hat, margin, margin), weight, bias)
        return nn.functional.pixel_shuffle(means, DOWNSAMPLING // scale)
