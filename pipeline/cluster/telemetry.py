"""Counts of a job in Ray's metrics, which every node exports to Prometheus (docs/operations.md has the table).

The driver counts, as markers arrive: an image that is done twice, because its worker died, counts once.
"""

from ray.util.metrics import Counter, Gauge

from pipeline.ledger.summary import Summary
from pipeline.status import Status


class Telemetry:
    """The metrics of a run; `job` tags them all."""

    def __init__(self, job: str) -> None:
        self._job = job
        self._images = _counter(
            "bls_images_total", "Images that are committed, by status: ok, kept, or the reason.", "status"
        )
        self._shards = _counter("bls_shards_total", "Shards that are committed.")
        self._pixels = _counter("bls_pixels_total", "Pixels of the images that are committed and good.")
        self._bytes_in = _counter("bls_bytes_in_total", "Bytes read of the images that are committed and good.")
        self._bytes_out = _counter("bls_bytes_out_total", "Bytes written of the images that are committed and good.")
        self._stages = _counter(
            "bls_stage_seconds_total", "Seconds that images spent in a stage, added up over images.", "stage"
        )
        self._failures = _counter(
            "bls_worker_failures_total", "Workers that died (crash) and shards that raised (error).", "kind"
        )
        self._workers = Gauge("bls_workers", description="Workers that are ready.", tag_keys=("job",))

    def committed(self, summary: Summary) -> None:
        """Count a shard whose marker arrived."""
        tags = {"job": self._job}
        self._shards.inc(1, tags)
        counts = {Status.OK: summary.num_coded, Status.KEPT: summary.num_kept, **summary.quarantined}
        for status, count in counts.items():
            _increase(self._images, count, {**tags, "status": status})
        _increase(self._pixels, summary.num_pixels, tags)
        _increase(self._bytes_in, summary.num_bytes_in, tags)
        _increase(self._bytes_out, summary.num_bytes_out, tags)
        for stage, seconds in summary.stage_seconds.items():
            _increase(self._stages, seconds, {**tags, "stage": stage})

    def failed(self, kind: str) -> None:
        """Count a worker that died (`crash`) or a shard that raised (`error`)."""
        self._failures.inc(1, {"job": self._job, "kind": kind})

    def ready(self, num_workers: int) -> None:
        """Report how many workers are ready."""
        self._workers.set(num_workers, {"job": self._job})


def _counter(name: str, description: str, *tags: str) -> Counter:
    return Counter(name, description=description, tag_keys=("job", *tags))


def _increase(counter: Counter, value: float, tags: dict[str, str]) -> None:
    if value > 0:  # Ray takes only these
        counter.inc(value, tags)
