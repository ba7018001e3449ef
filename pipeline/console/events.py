"""What a job reports to machines (`--log-json`): one JSON object per line on stderr, and nothing for people.

Every object has `event` and `time` (UTC); docs/operations.md describes the events and their fields, which stay as they
are from release to release.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from pipeline.console.streams import write_line
from pipeline.ledger.markers import Marker
from pipeline.ledger.summary import Summary
from pipeline.storage.secrets import redact

_for_machines = False  # one process, one stderr: what it carries is a property of both


@contextmanager
def for_machines(wanted: bool) -> Iterator[None]:
    """Write events instead of messages for people, if this is wanted."""
    global _for_machines
    before, _for_machines = _for_machines, wanted
    try:
        yield
    finally:
        _for_machines = before


def are_wanted() -> bool:
    """Return whether events are written, and nothing else."""
    return _for_machines


def emit(event: str, **fields: Any) -> None:
    """Write an event, if they are wanted."""
    if _for_machines:
        record = {"event": event, "time": datetime.now(UTC).isoformat(timespec="milliseconds"), **fields}
        # A string in a line of JSON may hold anything, credentials in a message too.
        write_line(redact(json.dumps(record, ensure_ascii=False)), sys.stderr)


def emit_shard(marker: Marker) -> None:
    """Write what became of a shard, and of its quarantined images by status."""
    summary, stint = marker.summary, marker.last_stint
    emit(
        "shard",
        shard=marker.shard,
        worker=stint and stint.worker,
        seconds=stint and round(stint.seconds, 3),
        **sums(summary),
    )
    for status, count in summary.quarantined.items():
        emit("quarantined", shard=marker.shard, status=status, num_images=count, example=summary.examples.get(status))


def sums(summary: Summary) -> dict[str, Any]:
    """Return the fields that events of a shard and of a whole job share; means of no images are null."""
    return {
        "num_images": summary.num_images,
        "num_quarantined": summary.num_quarantined,
        "num_pixels": summary.num_pixels,
        "num_bytes_in": summary.num_bytes_in,
        "num_bytes_quarantined": summary.num_bytes_quarantined,
        "num_bytes_out": summary.num_bytes_out,
        "bpp": summary.total_bpp,
        "mean_bpp": summary.bpp.value,
        "psnr_db": summary.psnr_db.value,
        "ms_ssim": summary.ms_ssim.value,
        "quality": summary.quality.value,
        "num_targets_missed": summary.num_targets_missed,
        "num_grown": summary.num_grown,
        "num_bytes_grown": summary.num_bytes_grown,
        "num_kept": summary.num_kept,
        "num_bytes_kept": summary.num_bytes_kept,
        "stage_seconds": dict(summary.stage_seconds),
    }
