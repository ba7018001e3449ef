"""Parquet files with a column of images, or of the URIs of images; the other columns are carried as they are.

Images are bytes, or the struct of `bytes` and `path` that Hugging Face datasets use; without bytes the path is read. A
listing reads footers, and the columns of keys or URIs where there are any; a worker reads whole row groups, and keeps
two: that of the images it is at, and the next one.
"""

import threading
from bisect import bisect_right
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.ahead import ahead
from pipeline.huggingface import with_features
from pipeline.images import ImageError
from pipeline.sources.reference import Columns, ImageReference, Sample, file_name, utf8
from pipeline.sources.uri_list import ListedUris
from pipeline.status import Status
from pipeline.storage.folder import Folder
from pipeline.storage.secrets import without_credentials

URI_COLUMNS = ("uri", "url", "path")
NUM_THREADS = 8  # footers that are read at once
MIN_KEPT_GROUPS, MAX_KEPT_GROUPS, MAX_KEPT_BYTES = 2, 32, 2**26  # small groups are read for many rows at a time
_BATCH_NUM_ROWS = 8192


class ParquetSource:
    """The rows of Parquet files of a folder; a key is that of the key column, or the file's name and the row."""

    def __init__(
        self,
        folder: Folder,
        names: Sequence[str],
        columns: Columns | None = None,
        *,
        uri: str | None = None,
        left_out: Mapping[str, int] | None = None,
    ) -> None:
        self._folder = folder
        self._names = names
        self._columns = columns or Columns()
        self._uri = uri or f"{folder}/{names[0]}"
        self._listed = ListedUris(folder)
        self._groups = _RowGroups(folder)
        self.carried: pa.DataType | None = None
        self.skipped: Counter[str] = Counter(left_out or {})

    def __str__(self) -> str:
        return self._uri

    def references(self) -> Iterator[ImageReference]:
        """List the rows file by file.

        Raises:
            ValueError: a file is missing, is not Parquet, lacks a column, or has other columns than the first file; or
                a row has no key or URI.
        """
        first: pa.Schema | None = None
        with ThreadPoolExecutor(NUM_THREADS) as executor:
            for name, (schema, num_rows) in zip(
                self._names, ahead(executor, self._footer, self._names, window=NUM_THREADS), strict=True
            ):
                if first is None:
                    first = schema
                    carried = carried_type(schema, image_column(schema, self._columns.image))
                    self.carried = carried and with_features(carried, schema)
                elif not schema.equals(first):
                    raise ValueError(
                        f"{self._folder}/{name} has other columns than {self._folder}/{self._names[0]}: "
                        f"{_differences(first, schema)}. Expected files of one schema: compress them one by one"
                    )
                yield from self._rows(name, schema, num_rows)

    def read(self, reference: ImageReference) -> bytes:
        """Read the image of a row."""
        return self.read_sample(reference).data

    def read_sample(self, reference: ImageReference) -> Sample:
        """Read a row.

        Raises:
            ImageError: `no_image`: the row has none.
        """
        assert reference.file is not None and reference.start is not None
        row = self._groups.row(file_name(reference.file), reference.start)
        column = image_column(row.schema, self._columns.image)
        value = row.column(column)[0].as_py()
        if isinstance(value, dict):  # `datasets` leaves the bytes out where the image is a file
            content, path = value["bytes"], value.get("path")
            value = path if content is None and isinstance(path, str) else content
        if value is None:
            raise ImageError(Status.NO_IMAGE, f"column {column} is null in this row, or has neither bytes nor a path")
        data = self._listed.read(self._listed.resolve(value)) if isinstance(value, str) else value
        return Sample(data, _carried(row, column))

    def _footer(self, name: str) -> tuple[pa.Schema, int]:
        try:
            with self._folder.open(name) as file, pq.ParquetFile(file) as parquet:
                return parquet.schema_arrow, parquet.metadata.num_rows
        except FileNotFoundError:
            raise ValueError(f"input {self} names {self._folder}/{name}, which is not there") from None
        except pa.ArrowInvalid as error:
            raise ValueError(f"{self._folder}/{name} is not a Parquet file, or is damaged: {error}") from error

    def _rows(self, name: str, schema: pa.Schema, num_rows: int) -> Iterator[ImageReference]:
        image, key = image_column(schema, self._columns.image), self._columns.key
        if key is not None and key not in schema.names:
            raise ValueError(f"--key-column is {key}, {self._folder}/{name} has {', '.join(schema.names)}")
        is_listed = _is_text(schema.field(image).type)
        wanted = [*([image] if is_listed else []), *([key] if key is not None else [])]
        stem, place, file = utf8(name[: -len(".parquet")]), f"{self._folder}/{name}", utf8(name)
        for row, values in enumerate(self._values(name, wanted) if wanted else ({} for _ in range(num_rows))):
            uri, text = f"{place}#row={row}", f"{stem}/{row}"
            if is_listed and values[image] is not None:
                uri = self._listed.resolve(values[image])
                text = utf8(self._listed.key(uri))
            if key is not None:
                if values[key] is None:
                    raise ValueError(f"row {row} of {place} has no {key}, which --key-column names: expected a value")
                text = str(values[key])
            yield ImageReference(text, utf8(without_credentials(uri)), text, file, row)

    def _values(self, name: str, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        with self._folder.open(name) as file, pq.ParquetFile(file) as parquet:
            for batch in parquet.iter_batches(batch_size=_BATCH_NUM_ROWS, columns=columns, use_threads=False):
                yield from batch.to_pylist()


class _RowGroups:
    """Row groups of the files of a folder, the last two or some small ones kept; may be asked by several threads."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._starts: dict[str, list[int]] = {}  # file -> first row of each group, and the number of rows
        self._kept: OrderedDict[tuple[str, int], pa.Table] = OrderedDict()

    def __reduce__(self) -> tuple[type["_RowGroups"], tuple[Folder]]:
        return _RowGroups, (self._folder,)

    def row(self, name: str, row: int) -> pa.Table:
        """Return a table of one row that keeps nothing else alive."""
        with self._lock:
            group = bisect_right(self._file_starts(name), row) - 1
            table = self._group(name, group)
            start = self._starts[name][group]
        return table.take([row - start])

    def _file_starts(self, name: str) -> list[int]:
        if name not in self._starts:
            with self._folder.open(name) as file, pq.ParquetFile(file) as parquet:
                sizes = (parquet.metadata.row_group(group).num_rows for group in range(parquet.num_row_groups))
                self._starts[name] = list(accumulate(sizes, initial=0))
        return self._starts[name]

    def _group(self, name: str, group: int) -> pa.Table:
        if (name, group) not in self._kept:
            while not self._has_room():
                self._kept.popitem(last=False)
            with self._folder.open(name) as file, pq.ParquetFile(file) as parquet:
                self._kept[name, group] = parquet.read_row_group(group, use_threads=False)
        self._kept.move_to_end((name, group))
        return self._kept[name, group]

    def _has_room(self) -> bool:
        num_kept, num_bytes = len(self._kept), sum(table.nbytes for table in self._kept.values())
        return num_kept < MIN_KEPT_GROUPS or (num_kept < MAX_KEPT_GROUPS and num_bytes < MAX_KEPT_BYTES)


def image_column(schema: pa.Schema, wanted: str | None) -> str:
    """Return the column of images or of their URIs: the one that is wanted, or the only one that can be it.

    Raises:
        ValueError: there is none, or there are several.
    """
    images = [field.name for field in schema if _holds_images(field.type)]
    uris = [name for name in URI_COLUMNS if name in schema.names and _is_text(schema.field(name).type)]
    if wanted is not None:
        if wanted in schema.names and (wanted in images or _is_text(schema.field(wanted).type)):
            return wanted
        raise ValueError(f"--image-column is {wanted}, expected a column of bytes or URIs: there are {_texts(schema)}")
    if "image" in images:
        return "image"
    if len(images) > 1:
        raise ValueError(f"several columns may hold images ({', '.join(images)}): choose one with --image-column")
    if not images and not uris:
        raise ValueError(
            f"no column holds images, or is called {', '.join(URI_COLUMNS)}: there are {_texts(schema)}; choose one "
            "with --image-column"
        )
    return (images or uris)[0]


def carried_type(schema: pa.Schema, image: str) -> pa.DataType | None:
    """Return the struct of all columns but that of the images, or None if there are no others."""
    fields = [pa.field(field.name, _plain(field.type)) for field in schema if field.name != image]
    return pa.struct(fields) if fields else None


def _carried(row: pa.Table, image: str) -> pa.Scalar | None:
    """Return the other columns of a row as an Arrow value: Python has no value for some of their types."""
    type_ = carried_type(row.schema, image)
    if type_ is None:
        return None
    others = row.drop_columns([image]).cast(pa.schema(list(type_)))
    return others.to_struct_array().combine_chunks()[0]


def _plain(type_: pa.DataType) -> pa.DataType:
    """Return the type of the values of a dictionary; for type null, a type that can be written."""
    return _without_null(type_.value_type if pa.types.is_dictionary(type_) else type_)


def _without_null(type_: pa.DataType) -> pa.DataType:
    """Replace type null by text, inside of structs, maps and lists too: Arrow has it where all values are null."""
    if pa.types.is_null(type_):
        return pa.string()
    if pa.types.is_struct(type_):
        return pa.struct([field.with_type(_without_null(field.type)) for field in type_])
    if pa.types.is_map(type_):
        return pa.map_(type_.key_type, _without_null(type_.item_type))
    if pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_):
        values = type_.value_field.with_type(_without_null(type_.value_type))
        if pa.types.is_fixed_size_list(type_):
            return pa.list_(values, type_.list_size)
        return pa.large_list(values) if pa.types.is_large_list(type_) else pa.list_(values)
    return type_


def _holds_images(type_: pa.DataType) -> bool:
    if pa.types.is_struct(type_):
        return any(field.name == "bytes" and _is_bytes(field.type) for field in type_)
    return _is_bytes(type_)


def _is_bytes(type_: pa.DataType) -> bool:
    return bool(pa.types.is_binary(type_) or pa.types.is_large_binary(type_) or pa.types.is_binary_view(type_))


def _is_text(type_: pa.DataType) -> bool:
    type_ = _plain(type_)
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_))


def _texts(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in schema)


def _differences(first: pa.Schema, second: pa.Schema) -> str:
    return _texts(pa.schema(set(second) ^ set(first))) or "in another order"
