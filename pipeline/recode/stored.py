"""A committed shard of a compressed dataset as it is recoded: its tables, whole."""

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.ledger.damage import parse_table, parsing, read_committed, read_table
from pipeline.ledger.markers import Marker
from pipeline.ledger.output import Output
from pipeline.ledger.schema import BITSTREAMS, METRICS, table_to_parquet
from pipeline.status import GOOD


@dataclass(frozen=True)
class StoredShard:
    """The metrics of all images of a shard, and the bitstreams of its good ones in the same order."""

    metrics: pa.Table
    bitstreams: pa.Table

    @classmethod
    def read(cls, output: Output, marker: Marker) -> "StoredShard":
        """Read what a marker names.

        Raises:
            DamagedFileError: a file is missing, or not what was committed; single bitstreams may be damaged.
        """
        metrics = read_table(output.folder, marker.files["metrics"], METRICS)
        file = marker.files["bitstreams"]
        bitstreams = parse_table(read_committed(output.folder, file), BITSTREAMS, folder=output, name=file.name)
        with parsing(output, file.name):
            if not metrics.filter(pc.field("status").isin(GOOD))["key"].equals(bitstreams["key"]):
                raise ValueError("its keys are not those of the good images in the metrics")
        return cls(metrics, bitstreams)

    @property
    def metadata(self) -> dict[str, str]:
        """What the file of metrics says of all rows."""
        return {name.decode(): value.decode() for name, value in (self.metrics.schema.metadata or {}).items()}

    def with_bitstreams(self, bitstreams: dict[str, bytes | None], *, metadata: dict[str, Any]) -> bytes:
        """Return a Parquet file of other bitstreams by key, with all that is stored beside them as it is.

        None stands for an image whose original was kept.
        """
        keys = pa.array(bitstreams, pa.string())
        kept = self.bitstreams.filter(pc.is_in(self.bitstreams["key"], keys))
        place = kept.schema.get_field_index("bitstream")
        coded = pa.array([bitstreams[key] for key in kept["key"].to_pylist()], pa.binary())
        return table_to_parquet(kept.set_column(place, kept.schema.field(place), coded), metadata=metadata)
