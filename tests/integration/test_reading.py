"""A compressed dataset read back, and images compressed, on a real Ray; the decompress job with its containers."""

import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from bls.codec import Codec
from pipeline.ledger.output import Output
from tests.datasets import STRUCT, Sample, pixels, write_dataset
from tests.jobs import head_node

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
NUM_IMAGES = 9

READ_BACK = """
import sys
import numpy as np, ray, pipeline
uri, bundle = sys.argv[1:]
dataset = pipeline.read_compressed(uri, bundle=bundle, concurrency=1)
rows = sorted(dataset.take_all(), key=lambda row: row["label"])
assert list(rows[0]) == ["key", "image", "width", "height", "label", "caption", "carried_key", "mask"], list(rows[0])
assert [row["key"] for row in rows] == [f"{n}.png" for n in range(9)]
assert [row["label"] for row in rows] == list(range(9))
kept = pipeline.read_compressed(uri, bundle=bundle, columns=["key", "image", "thumbnail_8"], where="status = 'kept'")
assert [row["thumbnail_8"].shape for row in kept.take_all()] == [(3, 3, 3)]
for row in rows:
    n = row["label"]
    assert row["image"].dtype == np.uint8
    assert (row["height"], row["width"]) == (16 + n // 3, 20)
    assert row["image"].shape == (row["height"], row["width"], 3 if n % 3 else 1)
np.save("images.npy", rows[4]["image"])
# What follows the actors finds a place to run, and whole batches of images of several shapes pass through.
sizes = pipeline.read_compressed(uri, bundle=bundle, columns=["image"], where="psnr_db < 24").map_batches(
    lambda batch: {"size": np.array([image.size for image in batch["image"]])}, batch_size=9
)
assert sorted(row["size"] for row in sizes.take_all()) == [320, 340, 960, 960]
latents = pipeline.read_compressed(uri, bundle=bundle, columns=["latents", "label"], keys=["3.png"]).take_all()
assert latents[0]["label"] == 3 and latents[0]["latents"].shape == (16, 2, 2), latents[0]
keys = pipeline.read_compressed(uri, bundle=bundle, columns=["key"], keys=["3.png", "8.png"])
assert sorted(row["key"] for row in keys.take_all()) == ["3.png", "8.png"]

items = [{"id": n, "image": image} for n, image in enumerate([b"", rows[4]["image"], b"no image"])]
compress = pipeline.CompressImages(quality=4, bundle=bundle)
compressed = ray.data.from_items(items, override_num_blocks=3).map_batches(compress, batch_size=1).materialize()
by_id = {row["id"]: row for row in compressed.take_all()}
assert [by_id[n]["status"] for n in range(3)] == ["empty", "ok", "not_an_image"]
assert by_id[0]["bpp"] is None and by_id[1]["bpp"] > 0 and by_id[1]["error_message"] is None
pool = {"quality": 2, "bundle": bundle}
actors = ray.data.from_items(items).map_batches(
    pipeline.CompressImages, fn_constructor_kwargs=pool, compute=ray.data.ActorPoolStrategy(size=1)
)
assert sum(row["status"] == "ok" for row in actors.take_all()) == 1
"""


@pytest.fixture(scope="module")
def dataset(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Output:
    """Return nine images in three shards."""
    samples = [
        Sample(
            f"{n}.png",
            pixels(16 + n // 3, 20, gray=n % 3 == 0, seed=n),
            carried={"label": n, "mask": b"m"},
            psnr_db=20 + n,
            status="kept" if n == 8 else "ok",
        )
        for n in range(NUM_IMAGES)
    ]
    shards = [samples[:3], samples[3:6], samples[6:]]
    return write_dataset(tmp_path_factory.mktemp("compressed"), tiny_bundle, shards, carried=STRUCT)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start a cluster of one node that all tests here share; return its address."""
    with head_node(tmp_path_factory.mktemp("cluster") / "log", "--num-cpus=2") as address:
        yield address


def run(cluster: str, *command: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "RAY_ADDRESS": cluster, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, timeout=560, cwd=cwd, env=environment
    )


def restore(
    cluster: str, dataset: Output, bundle: Path, output: Path, *options: object
) -> subprocess.CompletedProcess[str]:
    job = [ROOT / "jobs" / "decompress_dataset.py", "--num-workers", 1]
    return run(cluster, *job, "--input", dataset, "--output", output, "--bundle", bundle, *options)


@pytest.mark.slow
def test_datasets_of_ray_data(dataset: Output, tiny_bundle: Path, cluster: str, tmp_path: Path) -> None:
    done = run(cluster, "-c", READ_BACK, dataset, tiny_bundle, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    stored = pq.read_table(f"{dataset}/{dataset.markers()[1].files['bitstreams'].name}")["bitstream"][1].as_py()
    assert np.array_equal(np.load(tmp_path / "images.npy"), Codec.load(tiny_bundle).decompress(stored))


@pytest.mark.slow
def test_selected_images_become_tars_and_a_rerun_repeats_nothing(
    dataset: Output, tiny_bundle: Path, cluster: str, tmp_path: Path
) -> None:
    options = ("--container", "webdataset", "--where", "psnr_db >= 22 AND key <> '8.png'")
    done = restore(cluster, dataset, tiny_bundle, tmp_path, *options)
    assert done.returncode == 0, done.stderr
    assert "6 restored, 0 quarantined" in done.stdout and f"{tmp_path}/images/{{000000..000002}}.tar" in done.stdout
    tars = [tmp_path / "images" / f"00000{number}.tar" for number in range(3)]
    names = [[f"{n}.{suffix}" for n in part for suffix in ("png", "mask", "json")] for part in ([2], [3, 4, 5], [6, 7])]
    for tar, expected in zip(tars, names, strict=True):
        with tarfile.open(tar) as archive:
            assert archive.getnames() == expected
    # A shard whose marker is lost is done again; what its first attempt left is no part of the result.
    (tmp_path / "commits" / "shard-000001.json").unlink()
    again = restore(cluster, dataset, tiny_bundle, tmp_path, *options)
    assert again.returncode == 0 and "3 of 6 images are restored already" in again.stderr, again.stderr
    assert sorted((tmp_path / "images").iterdir()) == tars
    other = restore(cluster, dataset, tiny_bundle, tmp_path, "--container", "webdataset", "--key", "1.png")
    assert other.returncode == 2 and "where was psnr_db >= 22 AND key <> '8.png', now None" in other.stderr


def test_wrong_selections_are_wrong_usage(dataset: Output, tiny_bundle: Path, cluster: str, tmp_path: Path) -> None:
    (tmp_path / "keys.txt").write_text("1.png\nnone.png\n")
    done = restore(cluster, dataset, tiny_bundle, tmp_path / "out", "--keys", tmp_path / "keys.txt")
    assert done.returncode == 2 and "1 of 2 keys are not in" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_examples_run(cluster: str, tmp_path: Path) -> None:
    reading = run(cluster, "examples/read_in_training.py", tmp_path / "training")
    assert reading.returncode == 0, reading.stderr
    assert "epoch 1: 5 images" in reading.stdout and "decoded on" in reading.stdout
    assert "astronaut.png has shape (256, 256, 3)" in reading.stdout
    mapping = run(cluster, "examples/map_batches.py")
    assert mapping.returncode == 0, mapping.stderr
    assert mapping.stdout.count(" dB") == 3 and "not_an_image" in mapping.stdout
