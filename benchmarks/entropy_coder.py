"""Rate and speed of the entropy coders on the symbols of a folder of images.

    python -m benchmarks.entropy_coder --images KODAK

Rates are of payloads, without the 11 bytes of header and checksum. Speeds are of one thread: the median over repeats of
the time for all images, compilation excluded, beside zlib (level 6, the symbols as int16) in the same run, so that
their ratios outlast the machine. Writes benchmarks/results/NAME.json.
"""

import time
import zlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
import tyro
from PIL import Image

from benchmarks.provenance import write_result
from bls.bundle import load_bundle
from bls.codec import Codec
from bls.entropy.adaptive.coder import AdaptiveCoder
from bls.entropy.adaptive.model import AdaptiveModel
from bls.entropy.coders import EntropyCoder, StartingStates
from bls.ladder import index_of


@dataclass(frozen=True)
class EntropyCoders:
    """Measure the entropy coders of a bundle over a folder of images."""

    images: Path
    """Folder of PNG images."""
    name: str = "entropy_coder"
    """Name of the file in benchmarks/results."""
    bundle: Path | None = None
    """Folder of fitted models; by default the shipped one."""
    repeats: int = 7


class Zlib:
    """The codec that everybody has: the symbols as int16, deflated."""

    def encode(self, symbols: np.ndarray) -> bytes:
        """Deflate symbols."""
        return zlib.compress(symbols.astype(np.int16).tobytes(), 6)

    def decode(self, payload: bytes, shape: tuple[int, int, int]) -> np.ndarray:
        """Inflate symbols."""
        return np.frombuffer(zlib.decompress(payload), np.int16).astype(np.int32).reshape(shape)


def main(config: EntropyCoders) -> None:
    """Code and decode all images at all qualities, print and write rates and speeds."""
    torch.set_num_threads(1)
    images = [np.asarray(Image.open(path).convert("RGB")) for path in sorted(config.images.glob("*.png"))]
    if not images:
        raise SystemExit(f"{config.images} has no *.png: pass a folder of PNG images")
    megapixels = sum(image[..., 0].size for image in images) / 1e6
    bundle = load_bundle(config.bundle)
    codec = Codec(bundle)
    points = []
    for quality in bundle.whole_qualities:
        network = bundle.network(quality)
        symbols = [codec.analyze([image], quality=quality)[0] for image in images]
        point = {"quality": quality, "num_filters": network.config.num_filters}
        states = network.states_at(index_of(quality))
        points.append(point | _measure(states, symbols, megapixels=megapixels, repeats=config.repeats))
        for name, value in points[-1].items():
            print(f"{name:40} {value:.4g}")
    settings = {"bundle": bundle.fingerprint.hex(), "num_images": len(images), "repeats": config.repeats}
    print(write_result(config.name, {**settings, "points": points}))


def _measure(
    states: StartingStates, symbols: Sequence[np.ndarray], *, megapixels: float, repeats: int
) -> dict[str, float]:
    """Return bits per pixel, also against static, and megapixels per second, also against zlib, of every coder."""
    coders = _coders(states)
    num_bytes: dict[str, int] = {}
    seconds = defaultdict(list)
    for _ in range(repeats + 1):  # the first compiles, and counts for nothing
        for name, coder in coders.items():
            start = time.perf_counter()
            payloads = [coder.encode(y) for y in symbols]
            middle = time.perf_counter()
            decoded = [coder.decode(payload, y.shape) for payload, y in zip(payloads, symbols, strict=True)]
            end = time.perf_counter()
            assert all(np.array_equal(a, b) for a, b in zip(decoded, symbols, strict=True))
            num_bytes[name] = sum(map(len, payloads))
            seconds[name, "encode"].append(middle - start)
            seconds[name, "decode"].append(end - middle)
    bpp = {name: 8 * n / megapixels / 1e6 for name, n in num_bytes.items()}
    bpp["density"] = sum(states.table.code_length_bits(y) for y in symbols) / megapixels / 1e6
    speed = {key: megapixels / median(times[1:]) for key, times in seconds.items()}
    return (
        {f"{name}_bpp": value for name, value in bpp.items()}
        | {f"{name}_bpp_to_static": value / bpp["static"] for name, value in bpp.items() if name != "static"}
        | {f"{name}_{way}_mp_per_second": value for (name, way), value in speed.items()}
        | {
            f"{name}_{way}_to_zlib": value / speed["zlib", way]
            for (name, way), value in speed.items()
            if name != "zlib"
        }
    )


def _coders(states: StartingStates) -> dict[str, EntropyCoder]:
    """Return our entropy coders, the adaptive one also as it knows the table alone, and zlib."""
    ours = {coder.name.lower(): each for coder, each in states.coders.items()}
    return {**ours, "adaptive_from_table": AdaptiveCoder(AdaptiveModel.from_table(states.table)), "zlib": Zlib()}


if __name__ == "__main__":
    main(tyro.cli(EntropyCoders))
