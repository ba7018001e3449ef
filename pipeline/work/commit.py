"""A shard from its references to its marker: the same for the workers of all jobs."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

import pyarrow as pa

from pipeline.ledger.markers import Marker, Stint
from pipeline.ledger.output import Output
from pipeline.ledger.schema import to_parquet
from pipeline.ledger.shard import Shard
from pipeline.ledger.summary import Summary


@dataclass(frozen=True)
class Results:
    """What became of a shard: the rows of its metrics, their sums, and its other files (kind -> content or open file).

    `earlier` is the work in rows that were kept from an earlier attempt.
    """

    rows: Sequence[Mapping[str, Any]]
    summary: Summary
    files: Mapping[str, bytes | IO[bytes]] = field(default_factory=dict)
    earlier: Sequence[Stint] = ()


def commit_once(
    output: Output, shard: Shard, process: Callable[[], Results], *, schema: pa.Schema, metadata: Mapping[str, Any]
) -> Marker:
    """Process a shard that is not committed yet, and commit it; return the marker that stands, maybe another run's.

    `schema` is that of the metrics, `metadata` what their file says of all rows.
    """
    if (marker := output.marker(shard.index, retry=shard.retry)) is not None:
        return marker
    began = time.monotonic()
    results = process()
    files = {**results.files, "metrics": to_parquet(results.rows, schema, metadata=metadata)}
    return output.commit(shard.index, files, results.summary, retry=shard.retry, began=began, earlier=results.earlier)
