"""What is said of a file of an output that is missing, truncated or edited: which file, what is wrong, what to do.

Committed files are opened here, and compared with the size in their marker; tables with the hash in it, too. Bitstreams
have checksums of their own: one that is damaged is not to take its neighbours with it.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.ledger.markers import CommittedFile
from pipeline.ledger.schema import ORIGINAL
from pipeline.storage.folder import Folder

_OF_A_SHARD = re.compile(r"(?:bitstreams|metrics|images|commits)/shard-\d+")
_NUM_THREADS = 16


class DamagedFileError(ValueError):
    """A file of an output is missing, truncated or was edited. If it is of a shard, doing that again mends it."""

    def __init__(self, message: str, *, is_of_a_shard: bool = False) -> None:
        super().__init__(message)
        self.is_of_a_shard = is_of_a_shard


@contextmanager
def parsing(folder: object, name: str) -> Iterator[None]:
    """Name the file in any error that parsing its content raises.

    Raises:
        DamagedFileError: in the place of any other error.
    """
    try:
        yield
    except DamagedFileError:
        raise
    except Exception as error:  # Arrow and json raise OSError, KeyError, RecursionError and more; nothing is read here
        raise _damaged(folder, name, f"is damaged or was edited ({_reason(error)})") from error


def read_committed(folder: Folder, file: CommittedFile) -> bytes:
    """Read a file that a marker names.

    Raises:
        DamagedFileError: it is missing, or of another size than was committed.
    """
    with _looking(folder, file):
        data = folder.read(file.name)
    _check_size(folder, file, len(data))
    return data


def read_table(
    folder: Folder, file: CommittedFile, schema: pa.Schema, *, columns: Sequence[str] | None = None
) -> pa.Table:
    """Read a Parquet file that a marker names, all columns of its schema or some.

    Raises:
        DamagedFileError: it is missing, or not what was committed.
    """
    data = read_committed(folder, file)
    with parsing(folder, file.name):
        if hashlib.sha256(data).hexdigest() != file.sha256:
            raise ValueError("its hash differs from the committed one")
    return parse_table(data, schema, folder=folder, name=file.name, columns=columns)


def read_tables(
    folder: Folder, files: Iterable[CommittedFile], schema: pa.Schema, *, columns: Sequence[str] | None = None
) -> list[pa.Table]:
    """Read several files at a time, in order."""
    with ThreadPoolExecutor(_NUM_THREADS) as executor:
        return list(executor.map(lambda file: read_table(folder, file, schema, columns=columns), files))


def check_committed(folder: Folder, files: Iterable[CommittedFile]) -> None:
    """Compare files with their markers without reading them, several at a time.

    Raises:
        DamagedFileError: one is missing, or of another size than was committed.
    """

    def check(file: CommittedFile) -> None:
        with _looking(folder, file):
            num_bytes = folder.num_bytes(file.name)
        _check_size(folder, file, num_bytes)

    with ThreadPoolExecutor(_NUM_THREADS) as executor:
        list(executor.map(check, files))


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
    if {"bitstream", *ORIGINAL}.issubset(columns):
        _check_is_one_of_both(table)


def _check_is_one_of_both(table: pa.Table) -> None:
    """Refuse rows with both a bitstream and an original, with neither, or with a part of an original."""
    is_coded = table["bitstream"].is_valid()
    for name in ORIGINAL:
        if not table[name].is_null().equals(is_coded):
            raise ValueError(f"columns bitstream and {name} have rows with both or neither, expected one of them")


@contextmanager
def _looking(folder: Folder, file: CommittedFile) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise _damaged(folder, file.name, "is missing, although it was committed") from error


def _check_size(folder: Folder, file: CommittedFile, num_bytes: int) -> None:
    with parsing(folder, file.name):
        if num_bytes != file.num_bytes:
            raise ValueError(f"it has {num_bytes} bytes, {file.num_bytes} were committed")


def _reason(error: Exception) -> str:
    """Return the first line of a message, without what Arrow says of the bytes' place in memory."""
    line = next(iter(str(error).splitlines()), "").rpartition("'<Buffer>': ")[2].strip(" .") or type(error).__name__
    return f"{line} is missing" if isinstance(error, KeyError) else line


def _damaged(folder: object, name: str, what: str) -> DamagedFileError:
    """Return the error that says what is wrong with a file, and what to do."""
    is_of_a_shard = _OF_A_SHARD.match(name) is not None
    if is_of_a_shard:
        remedy = f"mend it with bls-verify --input {folder} --repair and the command that wrote it, given again"
    elif name.startswith("plan/"):
        remedy = "begin anew with --overwrite"
    else:
        remedy = "use another folder"
    message = f"{folder}/{name} {what}: restore it from a copy, or {remedy}"
    return DamagedFileError(message, is_of_a_shard=is_of_a_shard)
