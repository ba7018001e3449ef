"""What an input has beside its images, as columns for queries: labels and captions, but no further images."""

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from pipeline.ledger.schema import CARRIED
from pipeline.read.dataset import CompressedDataset


def carried_columns(dataset: CompressedDataset) -> ds.Scanner | None:
    """Return key and carried columns of all images that were compressed, read when they are asked for.

    Members of tars are one column, `carried`, a map of extensions to bytes. None where nothing is carried.
    """
    files = [marker.files["bitstreams"].name for marker in dataset.markers]
    filesystem, path = dataset.output.folder.to_arrow()
    if not files or CARRIED not in (schema := pq.read_schema(f"{path}/{files[0]}", filesystem=filesystem)).names:
        return None
    columns = {"key": ds.field("key"), **_columns(schema.field(CARRIED).type)}
    paths = [f"{path}/{name}" for name in files]
    return ds.dataset(paths, schema=schema, format="parquet", filesystem=filesystem).scanner(columns=columns)


def _columns(type_: pa.DataType) -> dict[str, ds.Expression]:
    if not pa.types.is_struct(type_):
        return {CARRIED: ds.field(CARRIED)}
    names = [member.name for member in type_ if not _holds_bytes(member.type)]
    return {f"{CARRIED}_key" if name == "key" else name: ds.field(CARRIED, name) for name in names}


def _holds_bytes(type_: pa.DataType) -> bool:
    """Return whether a column may hold images, which a query of labels is not to read."""
    if pa.types.is_struct(type_):
        return any(_holds_bytes(member.type) for member in type_)
    return bool(pa.types.is_binary(type_) or pa.types.is_large_binary(type_))
