"""Where the restored images of a shard go: files of their own, a WebDataset tar, or a Parquet file.

Files of their own are written one by one, each at once. Images of the others wait in an unlinked temporary file, as
they come, until all of a shard are there; then they are put together in the order of the shard: equal images, equal
bytes.
"""

import base64
import errno
import json
import tempfile
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import chain
from typing import IO, Any, Literal, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import huggingface
from pipeline.decompress import tar_writer
from pipeline.images import FORMATS, ImageError
from pipeline.ledger.bitstream_rows import Bitstreams, carried_names, read_stored
from pipeline.ledger.output import Output
from pipeline.ledger.schema import CARRIED, RESTORED_IMAGES
from pipeline.status import Status
from pipeline.storage.folder import Folder
from pipeline.storage.uris import UnsafeNameError, check_name

Container = Literal["files", "webdataset", "parquet"]

_ROW_GROUP_NUM_BYTES = 2**26


@dataclass(frozen=True)
class RestoredImage:
    """An encoded image with its place in the shard and, by their names in the input, the values carried beside it."""

    position: int
    stem: str
    extension: str
    data: bytes
    width: int
    height: int
    carried: Mapping[str, Any]

    @property
    def path(self) -> str:
        """Return its name."""
        return self.stem + self.extension


class RestoredFiles(Protocol):
    """Takes the restored images of one shard; `add` may be called from several threads."""

    def add(self, image: RestoredImage) -> str:
        """Take an image; return its name.

        Raises:
            UnsafeNameError: a name would lead out of its folder.
            ImageError: `name_clash`.
            OSError: it cannot be written.
        """
        ...

    def finish(self) -> Mapping[str, IO[bytes]]:
        """Write what is left to write when all images were added; return what is to be committed (kind -> open file).

        Raises:
            OSError: it cannot be written.
        """
        ...


@contextmanager
def open_restored(
    container: str, *, output: Output, shard: int, image_format: str, bitstreams: Bitstreams, rows: Sequence[int]
) -> Iterator[RestoredFiles]:
    """Open what takes the images of a shard, which are those of the given rows of a file of bitstreams."""
    images = output.folder.child("images")
    # Files without a name: no killed process leaves one behind.
    with tempfile.TemporaryFile() as spool, tempfile.TemporaryFile() as result:
        if container == "webdataset":
            name = tar_name(shard)
            if output.record_written(shard, [name]):
                raise _foreign(f"{images}/{name}")
            yield RestoredTar(_Spool(spool), result, images, name)
        elif container == "parquet":
            yield RestoredTable(_Spool(spool), result, bitstreams, rows)
        else:
            names = [name for name in _file_names(bitstreams, rows, FORMATS[image_format]) if _is_safe(name)]
            foreign = output.record_written(shard, names)
            yield RestoredFolder(images, foreign)


class RestoredFolder:
    """Image files in the folders that the input had; carried values have no place there.

    Files of the names in `foreign` were there before and stay as they are.
    """

    def __init__(self, folder: Folder, foreign: Collection[str]) -> None:
        self._folder = folder
        self._foreign = foreign

    def add(self, image: RestoredImage) -> str:
        """Write an image file."""
        if image.path in self._foreign:
            raise _foreign(f"{self._folder}/{image.path}")
        self._folder.write(image.path, image.data)
        return image.path

    def finish(self) -> Mapping[str, IO[bytes]]:
        """Return nothing: the files are there."""
        return {}


class RestoredTar:
    """A tar as WebDataset reads it, `000042.tar`: `<stem>.png` and, with the same stem, what was carried.

    Members are carried under their extension. Of carried columns those of bytes become members named like them, all
    others one `json`. WebDataset cuts a name at the first dot of its last part, so dots of the stem are escaped there.
    """

    def __init__(self, spool: "_Spool", archive: IO[bytes], folder: Folder, name: str) -> None:
        self._spool = spool
        self._archive = archive
        self._folder = folder
        self._name = name

    def add(self, image: RestoredImage) -> str:
        """Keep the members of an image."""
        folder, slash, name = image.stem.rpartition("/")
        stem = folder + slash + name.replace("%", "%25").replace(".", "%2E")
        path = stem + image.extension
        members = list(tar_writer.member(path, image.data))
        taken = {image.extension}
        for extension, data in _members(image.carried):
            if "/" in extension:
                raise UnsafeNameError(f"carried member {extension!r} is not an extension: expected one without '/'")
            if f".{extension}" in taken:
                raise ImageError(
                    Status.NAME_CLASH, f"carried member {extension!r} is there already: use another --format"
                )
            taken.add(f".{extension}")
            members += tar_writer.member(f"{stem}.{extension}", data)
        self._spool.add(image.position, members)
        return path

    def finish(self) -> Mapping[str, IO[bytes]]:
        """Write the archive: its name, which others count on, has no place for the id of an attempt."""
        self._spool.copy_to(self._archive)
        self._archive.write(tar_writer.END)
        self._archive.seek(0)
        self._folder.write_from(self._name, self._archive)
        return {}


class RestoredTable:
    """A Parquet file of `pipeline.ledger.schema.RESTORED_IMAGES` and the carried columns, flat.

    Hugging Face `datasets` see in its metadata that the images are images, and what the input said of carried columns.
    """

    def __init__(self, spool: "_Spool", file: IO[bytes], bitstreams: Bitstreams, rows: Sequence[int]) -> None:
        self._spool = spool
        self._file = file
        self._bitstreams = bitstreams
        self._rows = rows
        self._images: dict[int, RestoredImage] = {}

    def add(self, image: RestoredImage) -> str:
        """Keep an image."""
        path = check_name(image.path)
        self._spool.add(image.position, [image.data])
        self._images[image.position] = replace(image, data=b"", carried={})
        return path

    def finish(self) -> Mapping[str, IO[bytes]]:
        """Return the table, of row groups of about 64 MB."""
        tables = self._row_groups()
        if (first := next(tables, None)) is None:
            return {}
        with pq.ParquetWriter(self._file, first.schema, compression="zstd", use_dictionary=False) as writer:
            for table in chain([first], tables):
                writer.write_table(table, row_group_size=len(table))
        self._file.seek(0)
        return {"images": self._file}

    def _row_groups(self) -> Iterator[pa.Table]:
        waiting: list[pa.Table] = []
        for table in self._tables():
            waiting.append(table)
            if sum(part.nbytes for part in waiting) >= _ROW_GROUP_NUM_BYTES:
                yield pa.concat_tables(waiting)
                waiting = []
        if waiting:
            yield pa.concat_tables(waiting)

    def _tables(self) -> Iterator[pa.Table]:
        positions = iter(sorted(self._images))
        rows = [self._rows[position] for position in sorted(self._images)]
        for stored in read_stored(self._bitstreams, rows, ["key", CARRIED]):
            for row in range(len(stored)):
                yield self._row(stored.slice(row, 1), self._images[next(positions)])

    def _row(self, stored: pa.Table, image: RestoredImage) -> pa.Table:
        values = {
            "image": {"bytes": self._spool.read(image.position), "path": image.path},
            "width": image.width,
            "height": image.height,
        }
        ours = {name: pa.array([values[name]], RESTORED_IMAGES.field(name).type) for name in values}
        carried = {name: stored[name] for name in carried_names(stored)}
        table = pa.table({"key": stored["key"], **ours, **carried})
        schema = pa.schema([_field(name, stored.schema) for name in table.column_names])
        return table.cast(schema.with_metadata(huggingface.schema_metadata(schema, image=huggingface.IMAGE)))


class _Spool:
    """Bytes by position, in a temporary file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._places: dict[int, tuple[int, int]] = {}

    def add(self, position: int, parts: Iterable[bytes]) -> None:
        with self._lock:
            start = self._file.seek(0, 2)
            self._file.writelines(parts)
            self._places[position] = start, self._file.tell() - start

    def read(self, position: int) -> bytes:
        start, size = self._places[position]
        self._file.seek(start)
        return self._file.read(size)

    def copy_to(self, file: IO[bytes]) -> None:
        for position in sorted(self._places):
            file.write(self.read(position))


def tar_name(shard: int) -> str:
    """Return the name of the tar of a shard; those of all are `{000000..000099}.tar`."""
    return f"{shard:06d}.tar"


def _foreign(path: str) -> FileExistsError:
    return FileExistsError(errno.EEXIST, "a file that this job did not write is there: move it away", path)


def _file_names(bitstreams: Bitstreams, rows: Sequence[int], extension: str) -> list[str]:
    """Return the names of the files of rows; kept originals have an extension of their own."""
    tables = read_stored(bitstreams, rows, ["stem", "original_extension"])
    return [row["stem"] + (row["original_extension"] or extension) for table in tables for row in table.to_pylist()]


def _is_safe(name: str) -> bool:
    with suppress(UnsafeNameError):
        return bool(check_name(name))
    return False


def _members(carried: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
    """Return carried values as members of a tar: extension and content."""
    other = {}
    for name, value in carried.items():
        if isinstance(value, bytes):
            yield name, value
        elif value is not None:
            other[name] = value
    if other:
        yield "json", json.dumps(other, ensure_ascii=False, default=_json_value).encode()


def _json_value(value: Any) -> str:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)


def _field(name: str, stored: pa.Schema) -> pa.Field:
    """Return one of our columns as the schema describes it, and a carried one as it is stored."""
    return RESTORED_IMAGES.field(name) if name in RESTORED_IMAGES.names else stored.field(name)
