"""Reading in a training loop: our datasets with each coder, beside files of other codecs that Pillow reads.

    python -m benchmarks.reading --images FOLDER

All sources hold the same images. A DataLoader without workers reads them on one thread, decodes, crops and makes
batches, as one worker on one core does. Every epoch is timed in turn for each source, so that a machine that becomes
slower does so for all; speeds over that of the mixed coder are of the same turn. The other codecs have their file at
the middle of their ladder of settings, and the bits per pixel stand beside every speed. Their files are read one by
one, and from a tar by WebDataset.

`latents` stops before the synthesis: what a worker does where the training device decodes. `thumbnail_16` and
`thumbnail_8` are small pictures without the synthesis, beside those that Pillow's `draft` makes of a JPEG file without
its high frequencies. Megapixels are always those of the originals. Writes benchmarks/results/reading.json.
"""

import io
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import tyro
import webdataset
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.provenance import write_result
from bls.entropy.coders import CODERS
from pipeline import CompressedImages
from pipeline.baselines import BASELINES, encode
from pipeline.read.dataset import CompressedDataset

JOB = Path(__file__).parent.parent / "jobs" / "compress_dataset.py"
OTHERS = ("jpeg-420", "webp", "avif-444-iq")


@dataclass(frozen=True)
class Reading:
    """Time epochs over a folder of images, some hundred."""

    images: Path
    """Folder of image files, as Pillow reads them."""
    quality: float = 4
    crop: int = 64
    """Side of the random crops, in pixels, at most that of the smallest image."""
    batch_size: int = 32
    epochs: int = 3
    """Epochs that count; one before them does not."""


@dataclass(frozen=True)
class Source:
    """Images as a training loop reads them."""

    batches: Iterable[Any]
    num_bytes: int


def main(config: Reading) -> None:
    """Make all sources, time their epochs in turn, print and write images and megapixels per second."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        images = _png_files(config, Path(folder) / "png")
        num_pixels = sum(image.shape[0] * image.shape[1] for image in images)
        sources = _ours(config, Path(folder)) | _others(config, images, Path(folder))
        seconds: dict[str, list[float]] = {name: [] for name in sources}
        for _ in range(1 + config.epochs):
            for name, source in sources.items():
                seconds[name].append(_epoch_seconds(source.batches, len(images)))
    result: dict[str, Any] = {"num_images": len(images), "megapixels": num_pixels / 1e6, "quality": config.quality}
    for name, source in sources.items():
        typical = median(seconds[name][1:])
        result[f"{name}_bpp"] = 8 * source.num_bytes / num_pixels
        result[f"{name}_images_per_second"] = len(images) / typical
        result[f"{name}_mp_per_second"] = num_pixels / typical / 1e6
        turns = zip(seconds[CODERS[0]][1:], seconds[name][1:], strict=True)
        result[f"{name}_speed_over_{CODERS[0]}"] = median(mixed / own for mixed, own in turns)
    for key, value in result.items():
        print(f"{key:45} {value:.4g}")
    print(write_result("reading", result))


class Files(Dataset[dict[str, Any]]):
    """Image files as a training loop reads them with Pillow."""

    def __init__(self, paths: Sequence[Path], decode: Callable[[bytes], Any], column: str = "image") -> None:
        self._paths = paths
        self._decode = decode
        self._column = column

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {self._column: self._decode(self._paths[index].read_bytes())}


class RandomCrop:
    """A square at a random place, as float32 of (3, size, size)."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __call__(self, image: npt.NDArray[np.uint8]) -> Tensor:
        top, left = (int(torch.randint(side - self._size + 1, ())) for side in image.shape[:2])
        window = torch.from_numpy(image[top : top + self._size, left : left + self._size])
        return window.permute(2, 0, 1).float() / 255


def _png_files(config: Reading, folder: Path) -> list[npt.NDArray[np.uint8]]:
    """Write the images as they are compressed, in RGB; return them."""
    folder.mkdir()
    images = []
    for path in sorted(config.images.iterdir()):
        with Image.open(path) as image:
            images.append(np.array(image.convert("RGB")))
        Image.fromarray(images[-1]).save(folder / f"{path.stem}.png")
    return images


def _ours(config: Reading, folder: Path) -> dict[str, Source]:
    """Compress the images with each coder; read images, latents and thumbnails."""
    sources = {}
    for coder in CODERS:
        output = str(folder / coder)
        options = ["--quality", str(config.quality), "--coder", coder, "--num-workers", "1"]
        command = [sys.executable, str(JOB), "--input", str(folder / "png"), "--output", output, *options]
        subprocess.run(command, check=True, capture_output=True)
        num_bytes = sum(marker.summary.num_bytes_bitstreams for marker in CompressedDataset(output).markers)
        images = CompressedImages(output, columns=["image"], transform=RandomCrop(config.crop), shuffle=True)
        sources[coder] = Source(DataLoader(images, config.batch_size), num_bytes)
        for column in ("latents", "thumbnail_16", "thumbnail_8"):
            others = CompressedImages(output, columns=[column], shuffle=True)
            sources[f"{coder}_{column}"] = Source(DataLoader(others, batch_size=None), num_bytes)
    return sources


def _others(config: Reading, images: Sequence[npt.NDArray[np.uint8]], folder: Path) -> dict[str, Source]:
    """Write the images as files and as a tar of other codecs, at the middle of their settings."""
    sources = {}
    decode = partial(_decode, crop=RandomCrop(config.crop))
    for codec in OTHERS:
        settings = BASELINES[codec].settings
        paths = []
        for number, image in enumerate(images):
            paths.append(folder / f"{number:06d}.{codec}")
            paths[-1].write_bytes(encode(image, codec, settings[len(settings) // 2]))
        num_bytes = sum(path.stat().st_size for path in paths)
        loader = DataLoader(Files(paths, decode), config.batch_size, shuffle=True)
        sources[codec] = Source(loader, num_bytes)
        tar = _tar(paths, folder / f"{codec}.tar")
        samples = webdataset.WebDataset(str(tar), shardshuffle=False).shuffle(len(paths))
        samples = samples.map(lambda sample, codec=codec: {"image": decode(sample[codec])})
        sources[f"{codec}_webdataset"] = Source(DataLoader(samples, config.batch_size), num_bytes)
        if codec == "jpeg-420":
            for scale in (16, 8):
                small = Files(paths, partial(_draft, scale=scale), column=f"thumbnail_{scale}")
                loader = DataLoader(small, batch_size=None, shuffle=True)
                sources[f"{codec}_thumbnail_{scale}"] = Source(loader, num_bytes)
    return sources


def _tar(paths: Sequence[Path], tar: Path) -> Path:
    with tarfile.open(tar, "w") as file:
        for path in paths:
            file.add(path, path.name)
    return tar


def _decode(data: bytes, *, crop: RandomCrop) -> Tensor:
    with Image.open(io.BytesIO(data)) as image:
        return crop(np.array(image.convert("RGB")))


def _draft(data: bytes, *, scale: int) -> npt.NDArray[np.uint8]:
    """Decode a JPEG file at 1/8 of its size, the smallest that the format has, and take means for 1/16."""
    with Image.open(io.BytesIO(data)) as image:
        image.draft("RGB", (image.width // 8, image.height // 8))
        return np.array(image.convert("RGB").reduce(scale // 8))


def _epoch_seconds(batches: Iterable[Any], num_images: int) -> float:
    start = time.perf_counter()
    seen = sum(len(batch["image"]) if "image" in batch else 1 for batch in batches)
    seconds = time.perf_counter() - start
    assert seen == num_images, f"{seen} of {num_images} images were read"
    return seconds


if __name__ == "__main__":
    main(tyro.cli(Reading))
