"""Which images of a compressed dataset are meant: all, those of some keys, those whose metrics pass a filter.

Only metrics that a marker names are read, some files at a time; in memory stay the keys that were asked for, and four
bytes per image that a key or condition selects.
"""

import itertools
import json
from array import array
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.ledger.damage import read_tables
from pipeline.ledger.markers import Marker
from pipeline.ledger.output import Output
from pipeline.ledger.schema import METRICS
from pipeline.read.sql import closed_connection
from pipeline.status import GOOD, Status
from pipeline.storage.opening import open_folder
from pipeline.storage.uris import absolute

_FILES_AT_ONCE = 64
_NUM_NAMED = 3  # keys in a message
_SUBQUERY = "a subquery"  # may draw a sample, and sees the state of the database
# SQL writes these without brackets, as if they were columns.
_VALUES_OF_NOW = frozenset(("current_timestamp", "current_date", "current_time", "localtime", "localtimestamp"))


@dataclass(frozen=True)
class Selection:
    """The rows of each shard's bitstreams that are meant, in order; shards without any are left out."""

    rows: Mapping[int, Sequence[int]]
    num_quarantined: int = 0  # of the images that were asked for: they are not stored
    num_kept: int = 0  # of the images that are selected: the original is stored in the place of a bitstream

    @property
    def num_images(self) -> int:
        """Return how many images are selected."""
        return sum(map(len, self.rows.values()))


def select(
    output: Output, markers: Sequence[Marker], *, keys: Collection[str] | None = None, where: str | None = None
) -> Selection:
    """Select images by key and by an SQL condition on the columns of `pipeline.ledger.schema.METRICS`; None means all.

    Raises:
        TypeError: the keys are one string.
        ValueError: a key is unknown, the condition is not SQL, no image meets it, or DuckDB is missing.
    """
    if isinstance(keys, str):
        raise TypeError(f"keys is the string {keys!r}, expected a list of keys: keys=[{keys!r}]")
    if keys is None and where is None:
        return Selection(
            {marker.shard: range(num_stored(marker)) for marker in markers if num_stored(marker)},
            sum(marker.summary.num_quarantined for marker in markers),
            sum(marker.summary.num_kept for marker in markers),
        )
    passes = _filter(where)
    wanted = None if keys is None else frozenset(keys)
    unseen = set(wanted or ())
    rows: dict[int, array[int]] = {}
    num_quarantined = num_kept = 0
    for table in read_metrics(output, markers, columns=["key", "shard", "status"] if where is None else None):
        known = unseen.intersection(table["key"].to_pylist())
        unseen -= known
        stored = _stored(table)
        stored_keys = stored["key"].to_pylist()
        kept = frozenset(stored.filter(pc.equal(stored["status"], Status.KEPT))["key"].to_pylist())
        num_quarantined += len(known.difference(stored_keys))
        chosen = passes(stored)
        for shard, row, key in _numbered(stored["shard"].to_pylist(), stored_keys):
            if key in chosen and (wanted is None or key in wanted):
                rows.setdefault(shard, array("i")).append(row)
                num_kept += key in kept
    if unseen:
        named = ", ".join(map(repr, sorted(unseen)[:_NUM_NAMED]))
        raise ValueError(
            f"{len(unseen)} of {len(wanted or ())} keys are not in {output}, for example {named}: "
            "expected keys as its metrics have them"
        )
    if not rows and where is not None:
        raise ValueError(f"no image meets {where!r}: see the metrics of {output}")
    return Selection(rows, num_quarantined, num_kept)


def num_stored(marker: Marker) -> int:
    """Return how many images a shard stores."""
    return marker.summary.num_images - marker.summary.num_quarantined


def read_keys(uri: str) -> list[str]:
    """Read a text file of one key per line; empty lines are skipped.

    Raises:
        ValueError: the file is missing, or is not UTF-8.
    """
    folder, _, name = absolute(uri).rpartition("/")
    try:
        text = open_folder(folder or "/").read(name).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read the keys in {uri}: {error}. Expected a text file, one key per line") from error
    keys = [line.removesuffix("\r") for line in text.split("\n")]
    return [key for key in keys if key]


def read_metrics(output: Output, markers: Sequence[Marker], *, columns: list[str] | None) -> Iterator[pa.Table]:
    """Read the metrics that markers name, some files at a time; None means all columns.

    Raises:
        DamagedFileError: a file is missing or damaged.
    """
    files = (marker.files["metrics"] for marker in markers)
    while group := list(itertools.islice(files, _FILES_AT_ONCE)):
        tables = read_tables(output.folder, group, METRICS, columns=columns)
        yield pa.concat_tables([table.replace_schema_metadata() for table in tables])


def stored_keys(output: Output, markers: Sequence[Marker]) -> Iterator[tuple[int, int, str]]:
    """Read the keys of all images that are not quarantined: shard, row in its file of bitstreams, key."""
    for table in read_metrics(output, markers, columns=["key", "shard", "status"]):
        stored = _stored(table)
        yield from _numbered(stored["shard"].to_pylist(), stored["key"].to_pylist())


def _stored(table: pa.Table) -> pa.Table:
    """Return the rows of metrics whose images are stored."""
    return table.filter(pc.is_in(table["status"], pa.array(GOOD, pa.string())))


def _numbered(shards: Sequence[int], keys: Sequence[str]) -> Iterator[tuple[int, int, str]]:
    """Number the images of each shard, as the bitstreams files do, which hold those that are not quarantined."""
    for shard, group in itertools.groupby(zip(shards, keys, strict=True), key=lambda pair: pair[0]):
        for row, (_, key) in enumerate(group):
            yield shard, row, key


def _check_is_of_the_row(where: str, connection: Any) -> None:
    """Refuse a condition that may choose other images the next time: a job that goes on would mix both.

    Raises:
        ValueError: names what is not of the row alone.
    """
    (parsed,) = connection.execute("SELECT json_serialize_sql(?)", [f"SELECT 1 WHERE {where}"]).fetchone()
    changing = connection.execute(
        "SELECT function_name FROM duckdb_functions() WHERE function_type = 'scalar' "
        "GROUP BY function_name HAVING bool_and(stability <> 'CONSISTENT')"
    ).fetchall()
    names = {name for (name,) in changing} | _VALUES_OF_NOW | {_SUBQUERY}
    if found := sorted(names.intersection(_names(json.loads(parsed)))):
        raise ValueError(
            f"condition {where!r} has {', '.join(found)}, which may differ each time: expected a condition on the "
            f"columns {', '.join(METRICS.names)}"
        )


def _names(node: Any) -> Iterator[str]:
    """Return the names of functions and columns, and subqueries, in a statement as DuckDB parses it."""
    if isinstance(node, dict):
        if "function_name" in node:
            yield node["function_name"].lower()
        if node.get("class") == "SUBQUERY":
            yield _SUBQUERY
        if node.get("class") == "COLUMN_REF":
            yield node["column_names"][-1].lower()
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _names(child)


def _filter(where: str | None) -> Callable[[pa.Table], Collection[str]]:
    """Return a function from a metrics table to the keys of those rows that meet a condition."""
    if where is None:
        return lambda table: frozenset(table["key"].to_pylist())
    # The condition sees the columns and nothing else.
    connection = closed_connection()
    import duckdb

    _check_is_of_the_row(where, connection)

    def passes(table: pa.Table) -> Collection[str]:
        try:
            return {key for (key,) in connection.from_arrow(table).filter(where).project("key").fetchall()}
        except duckdb.Error as error:
            raise ValueError(
                f"condition {where!r} is not SQL over the metrics ({str(error).splitlines()[0]}): "
                f"expected one like \"psnr_db < 30 AND source_format = 'JPEG'\" over {', '.join(table.column_names)}"
            ) from error

    return passes
