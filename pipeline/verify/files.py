"""The files of a shard: read whole, compared with their marker, and their rows with the plan."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.ledger.damage import DamagedFileError, parse_table
from pipeline.ledger.markers import Marker
from pipeline.ledger.output import Output
from pipeline.ledger.schema import BITSTREAMS, METRICS, ORIGINAL
from pipeline.status import GOOD
from pipeline.verify.findings import Finding, Problem

_SCHEMAS = {"metrics": METRICS, "bitstreams": BITSTREAMS}
_COLUMNS = {"metrics": METRICS.names, "bitstreams": ["key", "bitstream", *ORIGINAL]}


@dataclass
class ShardFiles:
    """What the files of a shard hold, as far as they can be read, and what is wrong with them."""

    metrics: list[dict[str, Any]] | None = None
    bitstreams: list[dict[str, Any]] | None = None
    num_bytes: int = 0
    findings: list[Finding] = field(default_factory=list)


def read_files(output: Output, marker: Marker, keys: Sequence[str] | None) -> ShardFiles:
    """Read the files of a shard; `keys` are those of the plan, None where it cannot be read."""
    found = ShardFiles()
    if absent := sorted(_SCHEMAS.keys() - marker.files.keys()):
        message = f"the marker names no file of {' and '.join(absent)}"
        found.findings.append(Finding(Problem.DAMAGED_MARKER, message, marker.shard, f"commits/{marker.name}"))
    found.metrics = _read(output, marker, "metrics", found)
    found.bitstreams = _read(output, marker, "bitstreams", found)
    if found.metrics is not None and keys is not None:
        _compare(found, marker, "metrics", keys, "the plan")
    if found.metrics is not None and found.bitstreams is not None:
        good = [row["key"] for row in found.metrics if row["status"] in GOOD]
        _compare(found, marker, "bitstreams", good, "the metrics")
    return found


def _read(output: Output, marker: Marker, kind: str, found: ShardFiles) -> list[dict[str, Any]] | None:
    """Return the rows of a file, None where it has none that can be read."""
    if (file := marker.files.get(kind)) is None:
        return None

    def note(problem: Problem, message: str) -> None:
        found.findings.append(Finding(problem, message, marker.shard, file.name))

    try:
        data = output.folder.read(file.name)
    except FileNotFoundError:
        note(Problem.MISSING_FILE, "the file is not there")
        return None
    found.num_bytes += len(data)
    if len(data) != file.num_bytes:
        note(Problem.WRONG_SIZE, f"the file has {len(data)} bytes, {file.num_bytes} were committed")
    elif (sha256 := hashlib.sha256(data).hexdigest()) != file.sha256:
        note(Problem.WRONG_HASH, f"SHA-256 of the file is {sha256}, {file.sha256} was committed")
    try:
        table = parse_table(data, _SCHEMAS[kind], folder=output, name=file.name, columns=_COLUMNS[kind])
        return table.to_pylist()  # type: ignore[no-any-return]
    except DamagedFileError as error:
        note(Problem.UNREADABLE_FILE, str(error.__cause__ or error).partition("\n")[0])
        return None


def _compare(found: ShardFiles, marker: Marker, kind: str, expected: Sequence[str], whose: str) -> None:
    """Note where the rows of a file are not the expected ones."""
    rows = found.metrics if kind == "metrics" else found.bitstreams
    keys = [row["key"] for row in rows or ()]
    if keys == list(expected):
        return
    missing, unknown = sorted(set(expected) - set(keys)), sorted(set(keys) - set(expected))
    what = f"{missing[0]} is missing" if missing else f"{unknown[0]} is unknown" if unknown else "the order is another"
    message = f"the {len(keys)} rows are not the {len(expected)} of {whose}: {what}"
    found.findings.append(Finding(Problem.WRONG_KEYS, message, marker.shard, marker.files[kind].name))
