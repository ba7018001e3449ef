"""Luma: the weighted sum of red, green and blue that stands for brightness."""

from jaxtyping import Float
from torch import Tensor

LUMA_WEIGHTS = (0.299, 0.587, 0.114)
"""Red, green and blue in luma (ITU-R BT.601)."""


def luma(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 h w"]:
    """Return the luma of RGB images, and grayscale images as they are."""
    if x.shape[1] == 1:
        return x
    return (x * x.new_tensor(LUMA_WEIGHTS)[:, None, None]).sum(dim=1, keepdim=True)
