"""From a shard to its marker, with a worker that only counts how often it is asked."""

import io
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.ledger.manifest import Manifest, Plan
from pipeline.ledger.markers import Marker
from pipeline.ledger.output import Output
from pipeline.ledger.shard import Shard
from pipeline.ledger.summary import Summary
from pipeline.work.commit import Results, commit_once

SCHEMA = pa.schema([("key", pa.string()), ("bpp", pa.float64())])
SHARD = Shard(3, ("a", "b"))


class Worker:
    """Makes a row for each image and an open file, and counts how often."""

    def __init__(self, output: Output) -> None:
        self.output = output
        self.num_calls = 0

    def run(self, shard: Shard) -> Marker:
        return commit_once(self.output, shard, lambda: self._process(shard), schema=SCHEMA, metadata={"job": "test"})

    def _process(self, shard: Shard) -> Results:
        self.num_calls += 1
        rows = [{"key": key, "bpp": 0.5} for key in shard.items]
        return Results(rows, Summary(2), {"images": io.BytesIO(b"table")}, earlier=shard.earlier_stints)


@pytest.fixture
def worker(tmp_path: Path) -> Worker:
    output = Output(str(tmp_path))
    output.begin(Manifest(job="compress", plans=(Plan("1" * 32),)))
    return Worker(output)


def test_a_shard_is_processed_and_committed_once(worker: Worker, tmp_path: Path) -> None:
    marker = worker.run(SHARD)
    assert worker.run(SHARD) == marker and worker.num_calls == 1
    table = pq.read_table(tmp_path / marker.files["metrics"].name)
    assert table.to_pylist() == [{"key": "a", "bpp": 0.5}, {"key": "b", "bpp": 0.5}]
    assert table.schema.metadata[b"job"] == b"test"
    assert (tmp_path / marker.files["images"].name).read_bytes() == b"table"
    assert marker.last_stint is not None and marker.last_stint.seconds >= 0


def test_a_retry_is_another_commit_with_the_earlier_work(worker: Worker) -> None:
    first = worker.run(SHARD)
    again = replace(SHARD, replaces=first)
    second = worker.run(again)
    assert (second.retry, worker.num_calls) == (1, 2)
    assert second.stints[0] == first.stints[0] and len(second.stints) == 2
    assert worker.run(again) == second and worker.num_calls == 2


def test_the_marker_of_a_faster_run_stands(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Worker(worker.output)
    process = worker._process

    def overtaken(shard: Shard) -> Results:
        other.run(shard)
        return process(shard)

    monkeypatch.setattr(worker, "_process", overtaken)
    marker = worker.run(SHARD)
    assert marker == worker.output.marker(SHARD.index) == other.run(SHARD)
    assert (worker.num_calls, other.num_calls) == (1, 1)
