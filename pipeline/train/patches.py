"""Training patches: which images are fit to be cut, how they are cut, and what every step's batch consists of.

Preprocessing follows Ballé, Laparra, Simoncelli (ICLR 2017, section 5): over-saturated images are dropped, images are
downsampled by a random factor and cropped, and uniform noise of one grey level is added. A batch depends on the seed,
the step and the place in the batch alone: a resumed run sees what an undisturbed one sees, whatever the number of
workers.

Letters in shapes: b batch, c channels, h and w rows and columns, p patch side.
"""

import math
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from bls.measures.images import luma
from bls.training.parallel import BatchPart
from bls.transforms.networks import DOWNSAMPLING
from pipeline.images import ImageError, decode
from pipeline.sources.reading import read_encoded
from pipeline.sources.reference import ImageReference, Source

MAX_KEPT_SIDE = 512
"""Of a larger image, one random crop of this side is kept, so that a hundred large photographs fit into memory."""
MAX_SATURATED = 0.25
"""Part of the samples that may lie at 0 or 255; the paper gives no figure."""
STEPS_PER_GROUP = 16
"""Steps that a stream decodes images for at once, so that several patches can be cut from each."""
PATCHES_PER_IMAGE = 4
"""Patches that a stream cuts from an image it has decoded, each for a step of its own."""
MAX_TRIES = 100
"""Images that a stream tries until one is fit; if this many in a row are not, something is wrong with the set."""


@dataclass(frozen=True)
class PatchConfig:
    """What a patch is and which images are fit to be cut."""

    patch_size: int = 192
    channels: int = 3
    min_scale: float = 0.5
    """Images are downsampled by a random factor between this and 1, but never below the size of a patch."""
    max_pixels: int = 2**27
    seed: int = 0

    def __post_init__(self) -> None:
        if self.patch_size < 16 or self.patch_size % 16 or self.patch_size > MAX_KEPT_SIDE:
            raise ValueError(f"patch_size is {self.patch_size}, expected a multiple of 16 up to {MAX_KEPT_SIDE}")
        if not 0 < self.min_scale <= 1:
            raise ValueError(f"min_scale is {self.min_scale}, expected above 0 and at most 1")


@dataclass
class PatchSet:
    """Decoded images, in the order of their references, and the number left out, by reason."""

    config: PatchConfig
    images: list[UInt8[np.ndarray, "h w c"]]
    keys: list[str] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)

    @classmethod
    def read(cls, source: Source, references: Iterable[ImageReference], config: PatchConfig) -> "PatchSet":
        """Read and decode images; those that are not fit are counted."""
        patches = cls(config, [])
        for reference in references:
            image = read_image(source, reference, config)
            if isinstance(image, str):
                patches.dropped[image] += 1
            else:
                patches.images.append(image)
                patches.keys.append(reference.key)
        return patches

    def batch(self, step: int, part: BatchPart) -> Float[Tensor, "b c p p"]:
        """Return a part of the batch of a step: random images, positions and flips, values in [0, 1]."""
        crops = []
        for slot in range(part.first, part.first + part.count):
            rng = np.random.default_rng((self.config.seed, step, slot))
            crops.append(_random_patch(self.images[rng.integers(len(self.images))], self.config.patch_size, rng))
        return with_noise(np.stack(crops), step, part, self.config)

    def batches(self, first_step: int, steps: int, part: BatchPart) -> Iterator[Float[Tensor, "b c p p"]]:
        """Return this part of the batches of all steps from the first one on."""
        return (self.batch(step, part) for step in range(first_step, steps))

    def whole_images(self, count: int | None = None) -> Iterator[Float[Tensor, "1 c h w"]]:
        """Return images one by one, without noise, cropped to multiples of 16."""
        for image in self.images[:count]:
            height, width = (side - side % DOWNSAMPLING for side in image.shape[:2])
            yield torch.from_numpy(image[:height, :width] / np.float32(255)).permute(2, 0, 1)[None]


def read_group(
    source: Source, references: Sequence[ImageReference], config: PatchConfig, group: int, part: BatchPart
) -> tuple[UInt8[np.ndarray, "s b p p c"], Counter[str]]:
    """Return the patches of `STEPS_PER_GROUP` steps for part of a batch, and what was left out on the way.

    Raises:
        ValueError: no image that is fit is found.
    """
    dropped: Counter[str] = Counter()
    size = config.patch_size
    patches = np.empty((STEPS_PER_GROUP, part.count, size, size, config.channels), np.uint8)
    for place in range(part.count):
        rng = np.random.default_rng((config.seed, group, part.first + place))
        for first in range(0, STEPS_PER_GROUP, PATCHES_PER_IMAGE):
            image = _read_any(source, references, config, rng, dropped)
            for step in range(first, first + PATCHES_PER_IMAGE):
                patches[step, place] = _random_patch(image, size, rng)
        # Patches of one image stay apart: not in the same step by construction, and not in the next by this.
        patches[:, place] = patches[rng.permutation(STEPS_PER_GROUP), place]
    return patches, dropped


def with_noise(
    patches: UInt8[np.ndarray, "b p p c"], step: int, part: BatchPart, config: PatchConfig
) -> Float[Tensor, "b c p p"]:
    """Return patches in [0, 1] with uniform noise of one grey level."""
    x = patches.astype(np.float32)
    for place in range(len(x)):
        rng = np.random.default_rng((config.seed, step, part.first + place, 1))
        x[place] += rng.random(x.shape[1:], dtype=np.float32) - 0.5
    return torch.from_numpy(x / 255).permute(0, 3, 1, 2)


def read_image(source: Source, reference: ImageReference, config: PatchConfig) -> UInt8[np.ndarray, "h w c"] | str:
    """Return an image, downsampled and cropped to what is kept, or why it is not used."""
    try:
        image = decode(read_encoded(source, reference), max_pixels=config.max_pixels).pixels
    except ImageError as error:
        return error.status
    if min(image.shape[:2]) < config.patch_size:
        return f"smaller than {config.patch_size} pixels a side"
    if ((image == 0) | (image == 255)).mean() > MAX_SATURATED:
        return "over-saturated"
    rng = np.random.default_rng((config.seed, zlib.crc32(reference.key.encode())))
    scale = rng.uniform(max(config.min_scale, config.patch_size / min(image.shape[:2])), 1)
    kept = _random_crop(_with_channels(image, config.channels), math.ceil(MAX_KEPT_SIDE / scale), rng)
    return np.ascontiguousarray(_downsample(kept, scale))


def _read_any(
    source: Source,
    references: Sequence[ImageReference],
    config: PatchConfig,
    rng: np.random.Generator,
    dropped: Counter[str],
) -> UInt8[np.ndarray, "h w c"]:
    for _ in range(MAX_TRIES):
        image = read_image(source, references[int(rng.integers(len(references)))], config)
        if not isinstance(image, str):
            return image
        dropped[image] += 1
    raise ValueError(f"{MAX_TRIES} images in a row cannot be trained on ({dict(dropped)}): look at the folder")


def _random_patch(image: UInt8[np.ndarray, "h w c"], size: int, rng: np.random.Generator) -> UInt8[np.ndarray, "p p c"]:
    patch = _random_crop(image, size, rng)
    return patch[:, ::-1] if rng.random() < 0.5 else patch


def _random_crop(image: UInt8[np.ndarray, "h w c"], size: int, rng: np.random.Generator) -> UInt8[np.ndarray, "h w c"]:
    """Cut a square at a random position; along a side that is shorter the whole image."""
    top, left = (int(rng.integers(max(side - size, 0) + 1)) for side in image.shape[:2])
    return image[top : top + size, left : left + size]


def _downsample(image: UInt8[np.ndarray, "h w c"], scale: float) -> UInt8[np.ndarray, "h w c"]:
    if scale > 0.98:  # a filter for a smaller change would only blur
        return image
    height, width = (round(side * scale) for side in image.shape[:2])
    picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    return np.asarray(picture.resize((width, height), Image.Resampling.LANCZOS)).reshape(height, width, image.shape[2])


def _with_channels(image: np.ndarray, channels: int) -> UInt8[np.ndarray, "h w c"]:
    if channels == 3:
        return image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)
    return image[:, :, None] if image.ndim == 2 else np.rint(luma(image)).astype(np.uint8)[:, :, None]
