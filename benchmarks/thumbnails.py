"""Thumbnails: how near they are to shrunk originals, and what decoding costs beside them.

    python -m benchmarks.thumbnails --images FOLDER --qualities 1 4 8

Every 62nd image is measured; the filter is fitted anew to others of the folder, so that no bundle has seen the measured
ones. PSNR is that against the means of the original's blocks, as floats, the original extended by its mirror image as
the codec does. Times of decoding and thumbnail alternate, on one thread. Writes benchmarks/results/thumbnails.json.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import tyro
from PIL import Image
from torch import Tensor

from benchmarks.provenance import write_result
from bls.bundle import Bundle, load_bundle
from bls.codec import Codec
from bls.entropy.coders import CODERS
from bls.measures.images import psnr_db
from bls.pixels import padded_shape
from bls.training.thumbnails import add_thumbnails
from bls.transforms.thumbnails import SCALES

EVERY = 62
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Thumbnails:
    """Measure thumbnails of a folder of photographs."""

    images: Path
    """Folder of image files, some hundred."""
    qualities: tuple[float, ...] = (4,)
    num_fitted: int = 300
    """Images that the filter is fitted to."""
    bundle: Path | None = None
    """Folder of fitted models; by default the one that comes with the package."""


def main(config: Thumbnails) -> None:
    """Fit, measure, print and write."""
    torch.set_num_threads(1)
    paths = sorted(config.images.iterdir())
    measured = [_read(path) for path in paths[::EVERY]]
    others = [path for number, path in enumerate(paths) if number % EVERY]
    fitted = others[:: max(len(others) // config.num_fitted, 1)][: config.num_fitted]
    result: dict[str, Any] = {"num_images": len(measured), "num_fitted": len(fitted)}
    for quality in config.qualities:
        network = load_bundle(config.bundle, quality=quality).network(quality)
        codec = Codec(Bundle([add_thumbnails(network, map(_as_batch, fitted))]))
        for name, value in _measure(codec, measured, quality).items():
            result[f"quality_{quality:g}_{name}"] = value
    for key, value in result.items():
        print(f"{key:45} {value:.4g}")
    print(write_result("thumbnails", result))


def _measure(codec: Codec, images: Sequence[Pixels], quality: float) -> dict[str, float]:
    decoded = [codec.decompress(codec.compress(x, quality=quality)) for x in images]
    result: dict[str, float] = {}
    for scale in SCALES:
        small = [codec.thumbnail(codec.compress(x, quality=quality), scale=scale) for x in images]
        psnrs = [_psnr_db(each, _shrunk(x, scale)) for each, x in zip(small, images, strict=True)]
        best = [_psnr_db(_shrunk(x_hat, scale), _shrunk(x, scale)) for x_hat, x in zip(decoded, images, strict=True)]
        result |= {f"psnr_db_{scale}": float(np.mean(psnrs)), f"lowest_psnr_db_{scale}": min(psnrs)}
        result[f"decoded_and_shrunk_psnr_db_{scale}"] = float(np.mean(best))
    for coder in CODERS:
        streams = [codec.compress(x, quality=quality, coder=coder) for x in images]
        result[f"{coder}_decoding_over_thumbnail"] = _ratio(codec.decompress, codec.thumbnail, streams)
    return result


def _ratio(one: Callable[[bytes], Any], other: Callable[[bytes], Any], streams: Sequence[bytes]) -> float:
    """Return the time of one function over that of the other, called in turn for each stream."""
    one(streams[0]), other(streams[0])
    seconds = [0.0, 0.0]
    for stream in streams:
        for number, function in enumerate((one, other)):
            start = time.perf_counter()
            function(stream)
            seconds[number] += time.perf_counter() - start
    return seconds[0] / seconds[1]


def _read(path: Path) -> Pixels:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def _as_batch(path: Path) -> Tensor:
    x = _read(path)
    height, width = (side - side % 16 for side in x.shape[:2])
    return torch.from_numpy(x[:height, :width].copy()).permute(2, 0, 1)[None] / 255


def _shrunk(x: Pixels, scale: int) -> npt.NDArray[np.float64]:
    (height, width), (padded_height, padded_width) = x.shape[:2], padded_shape(*x.shape[:2])
    padded = np.pad(x, ((0, padded_height - height), (0, padded_width - width), (0, 0)), mode="symmetric")
    blocks = padded.reshape(padded_height // scale, scale, padded_width // scale, scale, 3)
    means: npt.NDArray[np.float64] = blocks.mean((1, 3))
    return means[: -(-height // scale), : -(-width // scale)]


def _psnr_db(x_hat: npt.NDArray[Any], x: npt.NDArray[np.float64]) -> float:
    return psnr_db(float(np.square(x_hat - x).mean()))


if __name__ == "__main__":
    main(tyro.cli(Thumbnails))
