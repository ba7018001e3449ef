"""What is said of a file of an output that is missing, truncated or edited: which file, what is wrong, what to do."""

import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.storage.folder import Folder

_SHARD = re.compile(r"(?:bitstreams|metrics|images|tars)/(shard-\d+)")
_NUM_THREADS = 16


class DamagedFileError(ValueError):
    """A file of an output is missing, truncated or was edited."""


@contextmanager
def parsing(folder: object, name: str) -> Iterator[None]:
    """Say of which file it is, whatever the parsing of its content raises.

    Raises:
        DamagedFileError: in the place of any other error.
    """
    try:
        yield
    except DamagedFileError:
        raise
    except Exception as error:  # Arrow and json raise OSError, KeyError, RecursionError and more; nothing is read here
        raise DamagedFileError(
            f"{folder}/{name} is damaged or was edited ({_reason(error)}): {_remedy(name)}"
        ) from error


def read_named(folder: Folder, name: str) -> bytes:
    """Read a file that an output says it has.

    Raises:
        DamagedFileError: it is missing.
    """
    try:
        return folder.read(name)
    except FileNotFoundError as error:
        raise DamagedFileError(f"{folder}/{name} is missing, although it was committed: {_remedy(name)}") from error


def read_many_named(folder: Folder, names: Iterable[str]) -> list[bytes]:
    """Read several such files at a time, in order."""
    with ThreadPoolExecutor(_NUM_THREADS) as executor:
        return list(executor.map(partial(read_named, folder), names))


def parse_table(
    data: bytes, schema: pa.Schema, *, folder: object, name: str, columns: Sequence[str] | None = None
) -> pa.Table:
    """Parse a Parquet file of an output, all columns of its schema or some.

    Raises:
        DamagedFileError: it is not whole, or lacks columns or values.
    """
    with parsing(folder, name):
        table = pq.read_table(pa.BufferReader(data), columns=None if columns is None else list(columns))
        check_columns(table, schema, schema.names if columns is None else columns)
        return table


def check_columns(table: pa.Table, schema: pa.Schema, columns: Sequence[str]) -> None:
    """Compare columns of a table with their schema.

    Raises:
        ValueError: one is missing, of another type, or has no value where there must be one, or text that is not UTF-8.
    """
    table.validate(full=True)
    for name in columns:
        if name not in table.column_names:
            raise ValueError(f"column {name} is missing")
        field, column = schema.field(name), table[name]
        if column.type != field.type:
            raise ValueError(f"column {name} is {column.type}, expected {field.type}")
        if not field.nullable and column.null_count:
            raise ValueError(f"column {name} has rows without a value")


def _reason(error: Exception) -> str:
    """Return the first line of a message, without what Arrow says of the bytes' place in memory."""
    line = next(iter(str(error).splitlines()), "").rpartition("'<Buffer>': ")[2].strip(" .") or type(error).__name__
    return f"{line} is missing" if isinstance(error, KeyError) else line


def _remedy(name: str) -> str:
    again = "give the command that wrote it again"
    if shard := _SHARD.match(name):
        return f"restore it from a copy, or delete commits/{shard[1]}*.json and {again}"
    if name.startswith("commits/"):
        return f"restore it from a copy, or delete it and {again}"
    if name.startswith("plan/"):
        return "restore it from a copy, or begin anew with --overwrite"
    return "restore it from a copy, or use another folder"
