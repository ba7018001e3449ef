"""Reading in a training loop: our datasets with each coder, beside files of other codecs that Pillow reads.

    python -m benchmarks.reading --images FOLDER

All sources hold the same images. A DataLoader without workers reads them on one thread, decodes, crops and makes
batches, as one worker on one core does. Every epoch is timed in turn for each source, so that a machine that becomes
slower does so for all. The other codecs have their file at the middle of their ladder of settings, and the bits per
pixel stand beside every speed. `latents` stops before the synthesis: what a worker does
where the training device decodes. Writes benchmarks/results/reading.json.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import tyro
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
    for key, value in result.items():
        print(f"{key:35} {value:.4g}")
    print(write_result("reading", result))


class Files(Dataset[dict[str, Tensor]]):
    """Image files as a training loop reads them with Pillow."""

    def __init__(self, paths: Sequence[Path], crop: "RandomCrop") -> None:
        self._paths = paths
        self._crop = crop

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        with Image.open(self._paths[index]) as image:
            return {"image": self._crop(np.array(image.convert("RGB")))}


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
    """Compress the images with each coder; read images, and latents of the first coder."""
    sources = {}
    for coder in CODERS:
        output = str(folder / coder)
        options = ["--quality", str(config.quality), "--coder", coder, "--num-workers", "1"]
        command = [sys.executable, str(JOB), "--input", str(folder / "png"), "--output", output, *options]
        subprocess.run(command, check=True, capture_output=True)
        num_bytes = sum(marker.summary.num_bytes_bitstreams for marker in CompressedDataset(output).markers)
        images = CompressedImages(output, columns=["image"], transform=RandomCrop(config.crop), shuffle=True)
        sources[coder] = Source(DataLoader(images, config.batch_size), num_bytes)
        latents = CompressedImages(output, columns=["latents"], shuffle=True)
        sources[f"{coder}_latents"] = Source(DataLoader(latents, batch_size=None), num_bytes)
    return sources


def _others(config: Reading, images: Sequence[npt.NDArray[np.uint8]], folder: Path) -> dict[str, Source]:
    """Write the images as files of other codecs, at the middle of their settings."""
    sources = {}
    for codec in OTHERS:
        settings = BASELINES[codec].settings
        paths = []
        for number, image in enumerate(images):
            paths.append(folder / f"{number}.{codec}")
            paths[-1].write_bytes(encode(image, codec, settings[len(settings) // 2]))
        files = Files(paths, RandomCrop(config.crop))
        loader = DataLoader(files, config.batch_size, shuffle=True)
        sources[codec] = Source(loader, sum(path.stat().st_size for path in paths))
    return sources


def _epoch_seconds(batches: Iterable[Any], num_images: int) -> float:
    start = time.perf_counter()
    seen = sum(len(batch["image"]) if "image" in batch else 1 for batch in batches)
    seconds = time.perf_counter() - start
    assert seen == num_images, f"{seen} of {num_images} images were read"
    return seconds


if __name__ == "__main__":
    main(tyro.cli(Reading))
