"""Images as arrays of pixels: checked, padded for the codec, and made from what it returns."""

from os import PathLike

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from bls.measures.luma import LUMA_WEIGHTS
from bls.transforms.networks import DOWNSAMPLING

Pixels = UInt8[np.ndarray, "h w"] | UInt8[np.ndarray, "h w 3"]


def padded_shape(height: int, width: int) -> tuple[int, int]:
    """Return the size at which an image is coded: the next multiples of 16."""
    return -height % DOWNSAMPLING + height, -width % DOWNSAMPLING + width


def as_pixels(image: Image.Image | Pixels) -> Pixels:
    """Return an image's uint8 array, checked.

    Raises:
        TypeError: neither a PIL image nor an array.
        ValueError: neither grayscale nor RGB, not uint8, or without pixels.
    """
    if isinstance(image, str | bytes | PathLike):
        raise TypeError(
            f"image is a {type(image).__name__}, expected a PIL image or a uint8 array: open the file "
            "first, with Pillow for instance"
        )
    if isinstance(image, Image.Image):
        if image.mode not in ("L", "RGB"):
            raise ValueError(
                f"image has mode {image.mode}, expected L or RGB: convert it first, as image.convert('RGB')"
            )
        return np.asarray(image)
    if not isinstance(image, np.ndarray):
        raise TypeError(f"image is a {type(image).__name__}, expected a PIL image or a uint8 array")
    if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)) or not image.size:
        raise ValueError(
            f"image is {image.dtype} of shape {image.shape}, expected uint8 of (h, w) grayscale or (h, w, 3) RGB"
        )
    return image


def to_planes(image: Pixels, shape: tuple[int, int], channels: int) -> UInt8[Tensor, "c h w"]:
    """Return an image's planes, extended to `shape` by its mirror image; grayscale is replicated for RGB models."""
    if channels == 1 and image.ndim == 3:
        raise ValueError("image is RGB, the model codes grayscale: convert it, or use a bundle of 3 channels")
    height, width = image.shape[:2]
    padding = ((0, shape[0] - height), (0, shape[1] - width))
    # Transposed before it is padded, so that both kinds of image take one path.
    planes = np.broadcast_to(image, (channels, height, width)) if image.ndim == 2 else image.transpose(2, 0, 1)
    return torch.from_numpy(np.pad(planes, ((0, 0), *padding), mode="symmetric"))


def to_uint8(x: Float[Tensor, "b c h w"], *, gray: bool) -> UInt8[Tensor, "b c h w"]:
    # A 1-channel model's image is grayscale whatever the header says.
    if gray and x.shape[1] == 3:
        x = (x * x.new_tensor(LUMA_WEIGHTS)[:, None, None]).sum(1, keepdim=True)
    return (x * 255).round().clamp(0, 255).to(torch.uint8)


def to_pixels(planes: UInt8[Tensor, "c h w"]) -> Pixels:
    pixels = planes.permute(1, 2, 0).numpy()
    return np.ascontiguousarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
