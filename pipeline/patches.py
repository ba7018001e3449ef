"""Training batches from a set of images: decoded once, kept in memory, cut into random patches.

Preprocessing follows Ballé, Laparra, Simoncelli (ICLR 2017, section 5): over-saturated images are dropped and uniform
noise of one grey level is added. A batch depends on the seed and the step alone, so a resumed run sees what an
undisturbed one sees.

Letters in shapes: b batch, c channels, h and w rows and columns, p patch side.
"""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from bls.quality import luma
from bls.transforms import DOWNSAMPLING
from pipeline.images import ImageError, decode
from pipeline.sources import ImageReference, Source

MAX_KEPT_SIDE = 512
"""Of a larger image one random crop of this side is kept: a hundred photographs of 12 megapixels fill no memory."""
MAX_SATURATED = 0.25
"""Part of the samples that may lie at 0 or 255; the paper gives no figure."""


@dataclass(frozen=True)
class PatchConfig:
    """What a patch is and which images are fit to be cut."""

    patch_size: int = 128
    channels: int = 3
    max_pixels: int = 2**27
    max_cached_gib: float = 4.0
    """Images are read until this much is decoded; the rest is left out."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.patch_size < 16 or self.patch_size % 16 or self.patch_size > MAX_KEPT_SIDE:
            raise ValueError(f"patch_size is {self.patch_size}, expected a multiple of 16 up to {MAX_KEPT_SIDE}")


@dataclass
class PatchSet:
    """Decoded images and what was left out, by reason."""

    config: PatchConfig
    images: list[UInt8[np.ndarray, "h w c"]]
    dropped: Counter[str] = field(default_factory=Counter)

    @classmethod
    def read(cls, source: Source, config: PatchConfig) -> "PatchSet":
        """Read and decode the images of a source.

        Raises:
            ValueError: no image is left to train on.
        """
        patches = cls(config, [])
        num_bytes = 0
        # threads: storage latency and Pillow's decoding both release the interpreter
        with ThreadPoolExecutor() as threads:
            for image in threads.map(lambda reference: _read(source, reference, config), source.references()):
                if isinstance(image, str):
                    patches.dropped[image] += 1
                elif num_bytes + image.nbytes > config.max_cached_gib * 2**30:
                    patches.dropped["over the memory limit"] += 1
                else:
                    patches.images.append(image)
                    num_bytes += image.nbytes
        if not patches.images:
            raise ValueError(
                f"no image of {source} can be trained on ({dict(patches.dropped) or 'none found'}): "
                f"expected images of at least {config.patch_size} pixels a side"
            )
        return patches

    def batch(self, step: int, size: int) -> Float[Tensor, "b c p p"]:
        """Return the batch of a step: random images, positions and flips, values in [0, 1]."""
        rng = np.random.default_rng((self.config.seed, step))
        crops = [self._crop(self.images[index], rng) for index in rng.integers(len(self.images), size=size)]
        x = np.stack(crops).astype(np.float32)
        x += rng.random(x.shape, dtype=np.float32) - 0.5
        return torch.from_numpy(x / 255).permute(0, 3, 1, 2)

    def whole_images(self) -> Iterator[Float[Tensor, "1 c h w"]]:
        """Return the kept images one by one, without noise, cropped to multiples of 16."""
        for image in self.images:
            height, width = (side - side % DOWNSAMPLING for side in image.shape[:2])
            yield torch.from_numpy(image[:height, :width] / np.float32(255)).permute(2, 0, 1)[None]

    def _crop(self, image: UInt8[np.ndarray, "h w c"], rng: np.random.Generator) -> UInt8[np.ndarray, "p p c"]:
        crop = _random_crop(image, self.config.patch_size, rng)
        return crop[:, ::-1] if rng.random() < 0.5 else crop


def _read(source: Source, reference: ImageReference, config: PatchConfig) -> UInt8[np.ndarray, "h w c"] | str:
    """Return an image, or why it is not used."""
    try:
        image = decode(source.read(reference), max_pixels=config.max_pixels).pixels
    except ImageError as error:
        return error.status
    except OSError:
        return "unreadable"
    if min(image.shape[:2]) < config.patch_size:
        return f"smaller than {config.patch_size} pixels a side"
    if ((image == 0) | (image == 255)).mean() > MAX_SATURATED:
        return "over-saturated"
    rng = np.random.default_rng((config.seed, image.shape[0], image.shape[1]))
    return _random_crop(_with_channels(image, config.channels), MAX_KEPT_SIDE, rng).copy()


def _random_crop(image: UInt8[np.ndarray, "h w c"], size: int, rng: np.random.Generator) -> UInt8[np.ndarray, "h w c"]:
    """Cut a square at a random position; along a side that is shorter the whole image."""
    top, left = (int(rng.integers(max(side - size, 0) + 1)) for side in image.shape[:2])
    return image[top : top + size, left : left + size]


def _with_channels(image: np.ndarray, channels: int) -> UInt8[np.ndarray, "h w c"]:
    if channels == 3:
        return image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)
    return image[:, :, None] if image.ndim == 2 else np.rint(luma(image)).astype(np.uint8)[:, :, None]
