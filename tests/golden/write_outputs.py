"""Write golden outputs: `python -m tests.golden.write_outputs`. Until 0.1.0 they may be written anew, then never again.

A folder of three images, and four outputs of the compress job over it in shards of one image: `committed` is whole,
`half` was killed after its first shard, in `retried` a broken image was mended and tried again, and to `grown` the last
image was appended. `kept` is of a folder of its own, `tiles`, with an original that is smaller than its bitstream. The
bundle is the one of the golden bitstreams.
"""

import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from jobs import compress_dataset
from pipeline.cluster.run import Work, run_to_end
from pipeline.compress.settings import settings_of
from pipeline.compress.worker import CompressionConfig, ShardCompressor
from pipeline.ledger.append import append_plan
from pipeline.ledger.manifest import Manifest
from pipeline.ledger.output import Output
from pipeline.ledger.plan import freeze_plan, planned_shards
from pipeline.sources.opening import open_source
from pipeline.work.codec import CodecSpec
from tests.datasets import pixels
from tests.inline import InlineCluster

GOLDEN = Path(__file__).parent
OUTPUTS = GOLDEN / "outputs-v1"
PLACE = Path("/tmp/bls-golden")  # which outputs name as the place of their images
BROKEN = "b/broken.png"


def main() -> None:
    """Write the folder."""
    shutil.rmtree(PLACE, ignore_errors=True)
    images = PLACE / "images"
    for seed, name in enumerate(("a.png", BROKEN, "c.png")):
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels(20, 24 + seed, seed=seed)).save(images / name)
    broken = (images / BROKEN).read_bytes()
    (images / BROKEN).write_bytes(broken[:100])
    compress(images, PLACE / "committed")
    compress(images, PLACE / "half", num_shards=1)
    compress(images, PLACE / "retried")
    (images / BROKEN).write_bytes(broken)
    compress(images, PLACE / "retried", retry_quarantined=True)
    (images / BROKEN).write_bytes(broken[:100])
    (images / "c.png").rename(PLACE / "c.png")
    compress(images, PLACE / "grown")
    (PLACE / "c.png").rename(images / "c.png")
    compress(images, PLACE / "grown", append=True)
    (PLACE / "tiles").mkdir()
    shutil.copy(images / "a.png", PLACE / "tiles")
    tiles = np.kron(np.indices((32, 40)).sum(0) % 2, np.ones((3, 3))).astype(bool)
    Image.fromarray(tiles).save(PLACE / "tiles" / "b.png")
    compress(PLACE / "tiles", PLACE / "kept", keep_smaller=True)
    shutil.rmtree(OUTPUTS, ignore_errors=True)
    shutil.move(PLACE, OUTPUTS)


def compress(
    images: Path,
    output: Path,
    *,
    num_shards: int | None = None,
    retry_quarantined: bool = False,
    append: bool = False,
    keep_smaller: bool = False,
) -> None:
    """Compress in this process, or go on; stop after so many shards, as a job that was killed."""
    codec = CodecSpec.of(str(GOLDEN / "v1" / "bundle"), 4)
    config = CompressionConfig(str(images), str(output), codec, keep_smaller=keep_smaller)
    source, folder = open_source(config.input), Output(config.output)
    begun = Manifest(job=compress_dataset.JOB, settings=settings_of(source, config))
    if append:
        append_plan(folder, source, begun=begun, shard_size=1, num_workers=lambda: 1)
    manifest = folder.manifest() or freeze_plan(folder, source, begun=begun, shard_size=1, num_workers=lambda: 1)
    worker = ShardCompressor(config)
    if num_shards is not None:
        for shard in list(planned_shards(folder, manifest, skip=set()))[:num_shards]:
            worker.run(shard)
        return
    work = Work(
        verb="compressed",
        output=folder,
        num_images=manifest.num_images,
        shards=lambda done: planned_shards(folder, manifest, skip=done),
        make_worker=lambda: worker,
    )
    run_to_end(work, InlineCluster(), max_failures=None, retry_quarantined=retry_quarantined, run=InlineCluster.run)


if __name__ == "__main__":
    main()
