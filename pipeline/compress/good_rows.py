"""What a retry of a shard's quarantined images keeps: the rows of its good ones, as they are."""

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipeline.ledger.damage import read_table
from pipeline.ledger.markers import CommittedFile, Marker
from pipeline.ledger.output import Output
from pipeline.ledger.schema import BITSTREAMS, CARRIED, METRICS
from pipeline.status import GOOD

Rows = dict[str, dict[str, Any]]  # by key


@dataclass(frozen=True)
class GoodRows:
    """Rows of good images by their keys; none where a shard is done for the first time."""

    metrics: Rows = field(default_factory=dict)
    bitstreams: Rows = field(default_factory=dict)

    @classmethod
    def of(cls, output: Output, marker: Marker | None) -> "GoodRows":
        """Read what a marker's files say of good images."""
        if marker is None:
            return cls()
        metrics = _read(output, marker.files["metrics"], METRICS)
        bitstreams = _read(output, marker.files["bitstreams"], BITSTREAMS)
        return cls({key: row for key, row in metrics.items() if row["status"] in GOOD}, bitstreams)


def _read(output: Output, file: CommittedFile, schema: pa.Schema) -> Rows:
    table = read_table(output.folder, file, schema)
    if CARRIED not in table.column_names:
        return {row["key"]: row for row in table.to_pylist()}
    # As they are: Python has no value for some of Arrow's.
    rows, carried = table.drop_columns([CARRIED]).to_pylist(), table[CARRIED]
    return {
        row["key"]: {**row, CARRIED: value if value.is_valid else None}
        for row, value in zip(rows, carried, strict=True)
    }
