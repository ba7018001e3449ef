"""What slow answers of storage cost a worker: images per second, compressed and restored, with each answer delayed.

    python -m benchmarks.latency --images PHOTOS

One worker of one thread, on the local disk; every read of an image, and every write of a restored one, sleeps first.
Images are small, so that a worker needs many a second. Writes benchmarks/results/latency.json.
"""

import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from unittest.mock import patch

import tyro
from PIL import Image

from benchmarks.provenance import write_result
from pipeline.compress.worker import CompressionConfig, ShardCompressor
from pipeline.decompress.worker import DecompressionConfig, ShardDecompressor, StoredImage
from pipeline.ledger.markers import Marker
from pipeline.ledger.shard import Shard
from pipeline.sources.folder import FolderSource
from pipeline.sources.opening import open_source
from pipeline.storage.local import LocalFolder
from pipeline.work.codec import CodecSpec

MAX_PIXELS = 2**24


@dataclass(frozen=True)
class Latency:
    """Time shards with delays of storage."""

    images: Path
    """Folder of photographs to make small images from."""
    num_images: int = 160
    side: int = 256
    delays_ms: tuple[int, ...] = (0, 10, 40, 100)


def main(config: Latency) -> None:
    """Compress and restore the images with each delay, print and write the rates."""
    result: dict[str, float] = {"num_images": config.num_images, "side": config.side}
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder, "small")
        _make_images(config, small)
        references = tuple(open_source(str(small)).references())
        codec = CodecSpec.of(None, 4)
        for number, delay in enumerate((0, *config.delays_ms)):  # the first one warms up
            output, restored = str(Path(folder, f"out-{number}")), str(Path(folder, f"restored-{number}"))
            with _delayed(FolderSource, "read_sample", delay / 1e3), _delayed(LocalFolder, "write", delay / 1e3):
                compressor = ShardCompressor(CompressionConfig(str(small), output, codec))
                rate, marker = _rate(partial(compressor.run, Shard(0, references)))
                result[f"compress_{delay}_ms_images_per_second"] = rate
                items = tuple(StoredImage(marker.files["bitstreams"], row) for row in range(config.num_images))
                decompressor = ShardDecompressor(DecompressionConfig(output, restored, "png", codec))
                rate, _ = _rate(partial(decompressor.run, Shard(0, items)))
                result[f"decompress_{delay}_ms_images_per_second"] = rate
    for job in ("compress", "decompress"):
        for delay in config.delays_ms:
            name = f"{job}_{delay}_ms"
            result[f"{name}_to_none"] = (
                result[f"{name}_images_per_second"] / result[f"{job}_{config.delays_ms[0]}_ms_images_per_second"]
            )
    for key, value in result.items():
        print(f"{key:44} {value:.4g}")
    print(write_result("latency", dict(result)))


def _make_images(config: Latency, folder: Path) -> None:
    folder.mkdir()
    paths = sorted(path for path in config.images.iterdir() if path.suffix in (".jpg", ".png"))
    for number, path in enumerate(islice(cycle(paths), config.num_images)):
        with Image.open(path) as image:
            small = image.convert("RGB").resize((config.side, config.side), Image.Resampling.LANCZOS)
        small.save(folder / f"{number:04d}.jpg", quality=90)


def _delayed(owner: type, name: str, seconds: float) -> AbstractContextManager[object]:
    """Make a method sleep before it begins."""
    method = getattr(owner, name)

    def delayed(*arguments: object) -> object:
        time.sleep(seconds)
        return method(*arguments)

    return patch.object(owner, name, delayed)


def _rate(run: Callable[[], Marker]) -> tuple[float, Marker]:
    start = time.perf_counter()
    marker = run()
    assert not marker.summary.quarantined, marker.summary
    return marker.summary.num_images / (time.perf_counter() - start), marker


if __name__ == "__main__":
    main(tyro.cli(Latency))
