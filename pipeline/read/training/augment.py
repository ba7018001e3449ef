"""Crops, flips and sizes of images on any device. Names and arguments are torchvision's, whose transforms serve, too.

An image is a uint8 tensor (c, h, w). Random numbers are those of torch's generator for the CPU.
"""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.nn.functional import interpolate

Image = UInt8[Tensor, "c h w"]
_TRIES = 10


class Compose:
    """Several transforms, one after the other."""

    def __init__(self, transforms: Sequence[Callable[[Image], Image]]) -> None:
        self._transforms = transforms

    def __call__(self, image: Image) -> Image:
        for transform in self._transforms:
            image = transform(image)
        return image


class RandomResizedCrop:
    """A window of random area and aspect ratio, resized to a square; `scale` is in parts of the image's area."""

    def __init__(
        self, size: int, scale: tuple[float, float] = (0.08, 1.0), ratio: tuple[float, float] = (3 / 4, 4 / 3)
    ) -> None:
        self._size = size
        self._scale = scale
        self._ratio = ratio

    def __call__(self, image: Image) -> Image:
        top, left, height, width = self._window(*image.shape[1:])
        return resized(image[:, top : top + height, left : left + width], (self._size, self._size))

    def _window(self, height: int, width: int) -> tuple[int, int, int, int]:
        for _ in range(_TRIES):
            area = height * width * _uniform(*self._scale)
            ratio = math.exp(_uniform(*map(math.log, self._ratio)))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                return _below(height - h), _below(width - w), h, w
        ratio = min(max(width / height, self._ratio[0]), self._ratio[1])
        w, h = min(width, round(height * ratio)), min(height, round(width / ratio))
        return (height - h) // 2, (width - w) // 2, h, w


class Resize:
    """The image so large that its smaller side has a length."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __call__(self, image: Image) -> Image:
        height, width = image.shape[1:]
        smaller = min(height, width)
        return resized(image, (self._size * height // smaller, self._size * width // smaller))


class CenterCrop:
    """The middle of the image, with black around it where it is smaller."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __call__(self, image: Image) -> Image:
        square = image.new_zeros((image.shape[0], self._size, self._size))
        (rows, to_rows), (columns, to_columns) = (_middle(side, self._size) for side in image.shape[1:])
        square[:, to_rows, to_columns] = image[:, rows, columns]
        return square


class RandomHorizontalFlip:
    """The image, or with a probability its mirror image."""

    def __init__(self, p: float = 0.5) -> None:
        self._p = p

    def __call__(self, image: Image) -> Image:
        return image.flip(-1) if float(torch.rand(())) < self._p else image


def resized(image: Image, shape: tuple[int, int]) -> Image:
    """Resize an image, bilinear with a filter against aliasing."""
    if image.shape[1:] == shape:
        return image
    resized = interpolate(image[None].float(), shape, mode="bilinear", antialias=True)[0]
    return resized.round().clamp(0, 255).to(torch.uint8)


def _middle(length: int, size: int) -> tuple[slice, slice]:
    """Return the middle of a length that is to be seen in a size, and where it is there."""
    kept = min(length, size)
    start, to = round((length - kept) / 2), (size - kept) // 2
    return slice(start, start + kept), slice(to, to + kept)


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(()))


def _below(limit: int) -> int:
    return int(torch.randint(limit + 1, ()))
