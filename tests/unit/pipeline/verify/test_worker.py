"""What the job's tests (tests/unit/jobs/test_verify_dataset.py) do not see: crashes, probes, sums."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.ledger.output import Output
from pipeline.ledger.shard import Shard
from pipeline.sources.reference import ImageReference
from pipeline.verify.worker import ShardVerifier, VerificationConfig
from pipeline.work.codec import CodecSpec
from tests.datasets import Sample, pixels, write_dataset


@pytest.fixture
def output(tmp_path: Path, tiny_bundle: Path) -> Output:
    samples = [Sample(f"{n}.png", pixels(16, 20, seed=n)) for n in range(3)]
    return write_dataset(tmp_path, tiny_bundle, [samples])


@pytest.fixture
def verifier(output: Output, tiny_bundle: Path) -> ShardVerifier:
    codec = CodecSpec.of(str(tiny_bundle), 4, max_pixels=2**22)
    return ShardVerifier(VerificationConfig(str(output), "1" * 32, codec))


@pytest.fixture
def shard(output: Output) -> Shard:
    keys = [f"{n}.png" for n in range(3)]
    return Shard(0, tuple(ImageReference(key, key, key, None, None, None) for key in keys), output.markers()[0])


def test_a_shard_without_problems_leaves_no_file(verifier: ShardVerifier, shard: Shard, tmp_path: Path) -> None:
    marker = verifier.run(shard)
    assert shard.replaces is not None
    assert (marker.summary.num_images, marker.summary.quarantined) == (3, {})
    assert marker.summary.num_pixels == 3 * 16 * 20
    assert marker.summary.num_bytes_in == sum(file.num_bytes for file in shard.replaces.files.values())
    assert marker.last_stint is not None and 0 <= marker.last_stint.seconds < 60
    assert not (tmp_path / "verify").exists()


def test_images_that_killed_workers_are_not_decoded(verifier: ShardVerifier, shard: Shard, tmp_path: Path) -> None:
    verifier.probe(shard)
    assert not (tmp_path / "verify").exists()
    marker = verifier.run(shard, crashed=[1])
    assert marker.summary.quarantined == {"bad_bitstream": 1}
    (row,) = pq.read_table(tmp_path / "verify").to_pylist()
    assert (row["key"], row["message"]) == ("1.png", "the process that decoded it died, each time")
