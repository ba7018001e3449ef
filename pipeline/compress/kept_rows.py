"""What a retry of a shard's quarantined images keeps: the rows of its good ones, as they are."""

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.ledger.markers import Marker
from pipeline.ledger.output import Output
from pipeline.ledger.summary import OK

Rows = dict[str, dict[str, Any]]  # by key


@dataclass(frozen=True)
class KeptRows:
    """Rows of good images by their keys; none where a shard is done for the first time."""

    metrics: Rows = field(default_factory=dict)
    bitstreams: Rows = field(default_factory=dict)

    @classmethod
    def of(cls, output: Output, marker: Marker | None) -> "KeptRows":
        """Read what a marker's files say of good images."""
        if marker is None:
            return cls()
        metrics, bitstreams = (_read(output, marker, kind) for kind in ("metrics", "bitstreams"))
        return cls({key: row for key, row in metrics.items() if row["status"] == OK}, bitstreams)


def _read(output: Output, marker: Marker, kind: str) -> Rows:
    table = pq.read_table(pa.BufferReader(output.folder.read(marker.files[kind])))
    return {row["key"]: row for row in table.to_pylist()}
