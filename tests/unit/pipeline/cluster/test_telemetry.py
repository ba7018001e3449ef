"""What is counted of a job, with metrics that remember it; tests/integration/test_submit.py has Ray's own."""

from collections import Counter
from typing import Any

import pytest

from pipeline.cluster import telemetry
from pipeline.cluster.telemetry import Telemetry
from pipeline.ledger.summary import Summary

Counts = Counter[tuple[str, ...]]


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counts:
    """Return what metrics that take the place of Ray's come to: (name, tag, ...) -> value."""
    counts: Counts = Counter()

    class FakeMetric:
        def __init__(self, name: str, description: str, tag_keys: tuple[str, ...]) -> None:
            assert description
            self._name, self._tag_keys = name, tag_keys

        def _key(self, tags: dict[str, str]) -> tuple[str, ...]:
            assert set(tags) == set(self._tag_keys)
            return (self._name, *(tags[key] for key in self._tag_keys))

        def inc(self, value: float, tags: dict[str, str]) -> None:
            assert value > 0  # as Ray's
            counts[self._key(tags)] += value  # type: ignore[assignment]

        def set(self, value: float, tags: dict[str, str]) -> None:
            counts[self._key(tags)] = value  # type: ignore[assignment]

    fake: Any = FakeMetric
    monkeypatch.setattr(telemetry, "Counter", fake)
    monkeypatch.setattr(telemetry, "Gauge", fake)
    return counts


def test_shards_add_up(counts: Counts) -> None:
    job = Telemetry("compress")
    job.committed(Summary(3, {"empty": 1}, num_pixels=64, num_bytes_in=100, num_bytes_out=10))
    job.committed(Summary(2, {"empty": 1, "truncated": 1}, stage_seconds={"decode": 0.5, "analysis": 0.0}))
    job.committed(Summary(3, num_kept=2, stage_seconds={"decode": 0.25}))
    assert counts == {
        ("bls_shards_total", "compress"): 3,
        ("bls_images_total", "compress", "ok"): 3,
        ("bls_images_total", "compress", "kept"): 2,
        ("bls_images_total", "compress", "empty"): 2,
        ("bls_images_total", "compress", "truncated"): 1,
        ("bls_pixels_total", "compress"): 64,
        ("bls_bytes_in_total", "compress"): 100,
        ("bls_bytes_out_total", "compress"): 10,
        ("bls_stage_seconds_total", "compress", "decode"): 0.75,
    }


def test_workers_and_their_failures(counts: Counts) -> None:
    job = Telemetry("decompress")
    job.ready(2)
    job.failed("crash")
    job.failed("error")
    job.failed("crash")
    job.ready(1)
    assert counts == {
        ("bls_worker_failures_total", "decompress", "crash"): 2,
        ("bls_worker_failures_total", "decompress", "error"): 1,
        ("bls_workers", "decompress"): 1,
    }
