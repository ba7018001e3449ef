"""Damage of a stored dataset on Ray: found, given back, mended by the next compress run."""

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.ledger.output import Output
from tests.datasets import pixels
from tests.jobs import run

pytestmark = pytest.mark.integration


@pytest.mark.slow
def test_four_damages_are_found_and_mended(tmp_path: Path, tiny_bundle: Path, cluster: str) -> None:
    photographs, output = tmp_path / "photographs", tmp_path / "compressed"
    photographs.mkdir()
    for seed in range(12):
        Image.fromarray(pixels(32 + seed, 40, seed=seed)).save(photographs / f"{seed:02d}.png")
    bundle = ("--bundle", tiny_bundle, "--num-workers", 2)
    compress = ("compress_dataset", "--input", photographs, "--output", output, "--shard-size", 2, *bundle)
    verify = ("verify_dataset", "--input", output, "--decode", *bundle)
    assert run(*compress, RAY_ADDRESS=cluster).returncode == 0
    done = run(*verify, RAY_ADDRESS=cluster)
    assert done.returncode == 0, done.stderr
    assert "mean of 12 images that were compared with their originals" in " ".join(done.stdout.split())

    first, second, third, fourth, *whole = Output(str(output)).markers()
    shutil.copy(output / whole[0].files["bitstreams"].name, output / first.files["bitstreams"].name)
    metrics = output / second.files["metrics"].name
    data = metrics.read_bytes()
    metrics.write_bytes(data[:200] + bytes([data[200] ^ 1]) + data[201:])
    (output / third.files["bitstreams"].name).unlink()
    restore = ("decompress_dataset", "--input", output, "--output", tmp_path / "restored", *bundle)
    done = run(*restore, RAY_ADDRESS=cluster)
    assert done.returncode == 1, done.stderr
    assert "shards were left out for this, all others are done" in done.stderr and "--repair" in done.stdout
    assert len(list((tmp_path / "restored" / "images").iterdir())) >= 8
    marker = output / "commits" / fourth.name
    marker.write_bytes(marker.read_bytes()[:99])

    done = run(*verify, "--repair", RAY_ADDRESS=cluster)
    assert done.returncode == 4, done.stderr
    assert "4 shards were given back" in done.stderr
    found = {(row["shard"], row["problem"]) for row in pq.read_table(output / "verify").to_pylist()}
    assert found >= {(1, "wrong_hash"), (2, "missing_file"), (3, "damaged_marker")}
    assert {shard for shard, _ in found} == {0, 1, 2, 3}

    done = run(*compress, RAY_ADDRESS=cluster)
    assert done.returncode == 0, done.stderr
    assert "4 of 12 images are compressed already" in done.stderr
    assert run(*verify, RAY_ADDRESS=cluster).returncode == 0
    assert Output(str(output)).markers()[4:] == whole
    done = run(*restore, "--overwrite", RAY_ADDRESS=cluster)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "restored" / "images").iterdir())) == 12
