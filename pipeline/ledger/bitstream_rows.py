"""Rows of a file of bitstreams, with what the input carried beside its images as columns of their own.

A file may have a last column `carried`: a struct of the user's columns where the input was Parquet, a map of extensions
to bytes where it was WebDataset. Both become columns by their names; one that is called like a column of ours gets
`carried_` before its name.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.ledger.damage import check_columns, parsing, read_committed
from pipeline.ledger.markers import CommittedFile
from pipeline.ledger.schema import BITSTREAMS, CARRIED
from pipeline.storage.folder import Folder

MADE_COLUMNS = ("image", "thumbnail_16", "thumbnail_8", "latents", "symbols", "width", "height")
"""Columns that readers make from the bitstream."""
_ROWS_AT_ONCE = 16


@dataclass(frozen=True)
class Bitstreams:
    """The content of a file of bitstreams, and where it is."""

    folder: Folder
    name: str
    data: bytes

    @classmethod
    def read(cls, folder: Folder, file: CommittedFile) -> "Bitstreams":
        """Read a committed file.

        Raises:
            DamagedFileError: it is missing, or of another size than was committed.
        """
        return cls(folder, file.name, read_committed(folder, file))


def read_stored(
    bitstreams: Bitstreams, rows: Sequence[int], columns: Sequence[str] | None = None
) -> Iterator[pa.Table]:
    """Read rows of a file of bitstreams, carried columns flat, as tables of a few rows.

    Where the rows do not ascend, all columns are in memory at once.

    Raises:
        DamagedFileError: the file is not whole, or has fewer rows.
    """
    with parsing(bitstreams.folder, bitstreams.name):
        file = pq.ParquetFile(pa.BufferReader(bitstreams.data))
        if len(rows) and max(rows) >= file.metadata.num_rows:
            raise ValueError(f"it has {file.metadata.num_rows} rows, expected row {max(rows)} in it")
        names = [name for name in file.schema_arrow.names if columns is None or name in columns]
        ours = [name for name in BITSTREAMS.names if columns is None or name in columns]
        extensions = _extensions(file) if CARRIED in names else []
        wanted = np.asarray(rows, np.int64)
        take = _take_ascending if np.all(np.diff(wanted) > 0) else _take_in_any_order
        for table in take(file, wanted, names):
            check_columns(table, BITSTREAMS, ours)
            yield _flat(table, extensions)


def carried_names(table: pa.Table) -> dict[str, str]:
    """Return the names of the carried columns of a table from `read_stored`, and what the input called them."""
    return {
        field.name: field.metadata[CARRIED.encode()].decode()
        for field in table.schema
        if field.metadata and CARRIED.encode() in field.metadata
    }


def carried_there(bitstreams: Bitstreams) -> tuple[list[str], bool]:
    """Return the names of the carried columns of a file, and whether they are members, which differ from file to file.

    Raises:
        DamagedFileError: the file is not whole.
    """
    with parsing(bitstreams.folder, bitstreams.name):
        file = pq.ParquetFile(pa.BufferReader(bitstreams.data))
        if CARRIED not in file.schema_arrow.names:
            return [], False
        carried = file.schema_arrow.field(CARRIED).type
        members = pa.types.is_map(carried)
        return unlike_ours(_extensions(file) if members else [field.name for field in carried]), members


def unlike_ours(names: Sequence[str]) -> list[str]:
    """Rename carried columns that are called like one of ours: `key` becomes `carried_key`."""
    taken = {*BITSTREAMS.names, *MADE_COLUMNS}
    unlike = []
    for name in names:
        while name in taken:
            name = f"{CARRIED}_{name}"
        taken.add(name)
        unlike.append(name)
    return unlike


def _take_ascending(file: pq.ParquetFile, rows: npt.NDArray[np.int64], names: list[str]) -> Iterator[pa.Table]:
    start = 0
    for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE, columns=names):
        inside = rows[(rows >= start) & (rows < start + len(batch))]
        if len(inside):
            yield pa.Table.from_batches([batch]).take(pa.array(inside - start))
        start += len(batch)


def _take_in_any_order(file: pq.ParquetFile, rows: npt.NDArray[np.int64], names: list[str]) -> Iterator[pa.Table]:
    table = file.read(columns=names)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        yield table.take(pa.array(rows[start : start + _ROWS_AT_ONCE]))


def _extensions(file: pq.ParquetFile) -> list[str]:
    """Return the extensions of all WebDataset members that a file carries, so that its tables are alike."""
    if not pa.types.is_map(file.schema_arrow.field(CARRIED).type):
        return []
    batches = file.iter_batches(batch_size=_ROWS_AT_ONCE, columns=[CARRIED])
    return sorted({key for batch in batches for key in batch.column(0).keys.to_pylist()})


def _flat(table: pa.Table, extensions: Sequence[str]) -> pa.Table:
    """Put a column for each carried column, or for each extension of carried members, in the place of `carried`."""
    if CARRIED not in table.column_names:
        return table
    carried = table[CARRIED].combine_chunks()
    table = table.drop_columns([CARRIED])
    if pa.types.is_map(carried.type):
        rows = [dict(row or ()) for row in carried.to_pylist()]
        parts = [pa.array([row.get(name) for row in rows], carried.type.item_type) for name in extensions]
        names = list(extensions)
    else:
        parts, names = carried.flatten(), [member.name for member in carried.type]
    known = {member.name: member.metadata or {} for member in carried.type} if pa.types.is_struct(carried.type) else {}
    for name, original, part in zip(unlike_ours(names), names, parts, strict=True):
        metadata = {**known.get(original, {}), CARRIED: original}
        table = table.append_column(pa.field(name, part.type, metadata=metadata), part)
    return table
