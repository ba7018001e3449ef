"""A job over and over, with another call to the storage of its output failing each time, until none is left to fail."""

import errno
import hashlib
import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.console.exits import UsageError, WorkError
from pipeline.ledger.markers import Marker
from pipeline.ledger.output import Output, OutputError
from pipeline.storage.folder import list_names
from pipeline.storage.retries import Retrying
from tests.faulty_disk import DeathError, Fault, FaultyDisk
from tests.jobs import comparable


class Faulty(Protocol):
    """Storage of which one call fails."""

    @property
    def has_failed(self) -> bool: ...

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None: ...


@dataclass(frozen=True)
class Trial:
    """A job, which appends the markers that it is told to a list, and what is checked of its output.

    `check_there` is called after the failure. `contents` returns what is in an output after the rerun, which must be
    the same as after an undisturbed run. `prepare` makes of an empty output the one that the job finds, once: the
    others are copies.
    """

    job: Callable[[Output, list[Marker]], None]
    check_there: Callable[[Output], None]
    contents: Callable[[Output], object]
    prepare: Callable[[Output], None] = lambda _: None

    def on_a_disk(self, root: Path, fault: Fault) -> int:
        """Let every call fail once; return how many there are."""

        def make(number: int) -> Faulty:
            folder = root / str(number)
            folder.mkdir(exist_ok=True)
            return FaultyDisk(folder, number, fault)

        return self._repeat(make, lambda name: Output(f"{root}/{name}"))

    def in_a_store(self, name: str, *, is_done: bool) -> int:
        """Let every request fail once, before it was done or after; return how many there are."""

        def make(number: int) -> Faulty:
            return FaultyStore(number, is_done)

        return self._repeat(make, lambda which: Output(f"memory://{name}-{which}"))

    def _repeat(self, make: Callable[[int], Faulty], output_of: Callable[[object], Output]) -> int:
        prepared, undisturbed = output_of("prepared"), output_of("undisturbed")
        self.prepare(prepared)
        _copy(prepared, undisturbed)
        self.job(undisturbed, [])
        expected = self.contents(undisturbed)
        for number in itertools.count(1):
            output, faulty = output_of(number), make(number)
            _copy(prepared, output)
            self._run_once(output, faulty)
            self.job(output, [])
            assert self.contents(output) == expected
            if not faulty.has_failed:
                break
        return number

    def _run_once(self, output: Output, faulty: Faulty) -> None:
        told = list[Marker]()
        with pytest.MonkeyPatch.context() as patch:
            faulty.install(patch)
            try:
                self.job(output, told)
            except (OSError, OutputError, UsageError, WorkError, DeathError):
                assert faulty.has_failed
        check_committed(output, told)
        self.check_there(output)


def _copy(source: Output, target: Output) -> None:
    for name in list_names(source.folder):
        target.folder.write(name, source.folder.read(name))


def check_committed(output: Output, told: list[Marker]) -> None:
    """Check that all that is committed is whole, and that nothing is lost that the job said it had committed."""
    markers = output.markers()
    for file in (file for marker in markers for file in marker.files.values()):
        data = output.folder.read(file.name)
        assert (len(data), hashlib.sha256(data).hexdigest()) == (file.num_bytes, file.sha256)
    assert [marker for marker in told if marker not in markers] == []


def rows(output: Output, kind: str) -> list[dict[str, Any]]:
    """Return the committed rows, without what differs from run to run."""
    contents = [pa.BufferReader(output.folder.read(each.files[kind].name)) for each in output.markers()]
    return comparable(pa.concat_tables(map(pq.read_table, contents)).to_pylist()) if contents else []


class FaultyStore:
    """Counts requests; one of them fails, before it was done or after."""

    def __init__(self, fails_at: int, is_done: bool) -> None:
        self._fails_at, self._is_done = fails_at, is_done
        self._lock = threading.Lock()
        self._num_requests = 0

    @property
    def has_failed(self) -> bool:
        return self._num_requests >= self._fails_at

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Put it between the folders and their client."""
        monkeypatch.setattr(Retrying, "_ask", self._request)

    def _request(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        with self._lock:
            self._num_requests += 1
            if self._num_requests != self._fails_at:
                return function(*arguments, **options)
            if self._is_done:
                function(*arguments, **options)
            raise OSError(errno.EIO, "this request was to fail")
