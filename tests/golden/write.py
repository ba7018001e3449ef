"""Write golden bitstreams, once: `python -m tests.golden.write v1`. What is there is never rewritten.

A folder of golden bitstreams holds a small bundle, bitstreams of small images and of hand-made symbols, and what they
must decode to: symbols exactly, pixels to one level (only the synthesis is floating point).
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from bls.bundle import save_bundle
from bls.codec import Codec, make_header
from bls.entropy.coders import CODERS
from tests.bundles import small_network
from tests.images import random_fields

GOLDEN = Path(__file__).parent
INT32 = np.iinfo(np.int32)


def main(name: str) -> None:
    folder = GOLDEN / name
    folder.mkdir()
    save_bundle(folder / "bundle", [small_network(2), small_network(3, 5)])
    codec = Codec.load(folder / "bundle", precision="float32")
    expected = {}
    for coder in CODERS:
        for case, (quality, x) in _images().items():
            expected[f"{case}-{coder}"] = _write(folder / f"{case}-{coder}", codec, x, quality, coder)
        for case, symbols in _symbols(codec.bundle.network(2).config.latents).items():
            x = np.zeros((16 * symbols.shape[1], 16 * symbols.shape[2], 3), np.uint8)
            data = codec.encode(symbols, header=make_header(x, quality=2, coder=coder))
            (folder / f"{case}-{coder}.bin").write_bytes(data)
            expected[f"{case}-{coder}"] = symbols_hash(symbols)
    (folder / "symbols.json").write_text(json.dumps(expected, indent=2) + "\n")


def symbols_hash(symbols: np.ndarray) -> str:
    """Return a hash of shape and values."""
    return hashlib.sha256(repr(symbols.shape).encode() + symbols.astype(">i4").tobytes()).hexdigest()


def _write(path: Path, codec: Codec, x: np.ndarray, quality: float, coder: str) -> str:
    (symbols,) = codec.analyze([x], quality=quality)
    data = codec.encode(symbols, header=make_header(x, quality=quality, coder=coder))
    path.with_suffix(".bin").write_bytes(data)
    Image.fromarray(codec.decompress(data)).save(path.with_suffix(".png"))
    return symbols_hash(symbols)


def _images() -> dict[str, tuple[float, np.ndarray]]:
    """Return images, and at which quality they are coded."""
    rgb = (random_fields(1, 64, seed=5)[0] * 255).round().byte().permute(1, 2, 0).numpy()
    cases = {
        "rgb": (4, rgb[:50, :33]),
        "gray": (3, rgb[:40, :64, 1]),
        "pixel": (5, rgb[:1, :1]),
        "line": (4.37, rgb[:1]),
    }
    return {**cases, "between": (3.21, rgb[:40, :40]), "single": (2, rgb[:50, :33])}


def _symbols(channels: int) -> dict[str, np.ndarray]:
    """Return arrays that reach what images do not: escapes on both sides, the ends of int32, long carries."""
    rng = np.random.default_rng(7)
    wild = np.rint(rng.standard_cauchy((channels, 6, 5)) * 20).clip(-1e6, 1e6).astype(np.int32)
    extreme = rng.choice(np.array([INT32.min, INT32.min + 1, -1, 0, 1, INT32.max - 1, INT32.max]), (channels, 3, 4))
    return {"wild": wild, "extreme": extreme.astype(np.int32), "zero": np.zeros((channels, 4, 4), np.int32)}


if __name__ == "__main__":
    main(*sys.argv[1:])
