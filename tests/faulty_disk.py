"""A disk of which one call fails: what pipeline/storage asks of the operating system, counted, for a folder and below.

The call either fails with an error, and the process lives on; or the process dies in the middle of it; or the machine
does, and all that was not synchronised is lost: contents of files, and names in folders.
"""

import errno
import io
import os
import shutil
import threading
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import IO, Any

import pytest

from pipeline.storage import listing, local

_COUNTED = ("fsync", "link", "mkdir", "open", "replace", "scandir", "stat", "unlink")


class Fault(StrEnum):
    ERROR = "error"
    DEATH = "death of the process"
    POWER_CUT = "power cut"


class DeathError(BaseException):
    """The process is dead: no call does anything any more."""


class FaultyDisk:
    """Stands for `os` and `open` in pipeline/storage; its `fails_at`-th call suffers the fault."""

    def __init__(self, root: Path, fails_at: int, fault: Fault) -> None:
        self._root = str(root)
        self._fails_at = fails_at
        self._fault = fault
        self._lock = threading.RLock()
        self._is_dead = False
        self._unwritten: set[int] = set()  # inodes of files whose content is not on the disk
        self._undo: list[tuple[str, Callable[[], None]]] = []  # what brings back the names in a folder
        self._folders: dict[int, str] = {}  # descriptor -> folder
        self.num_calls = 0

    @property
    def has_failed(self) -> bool:
        return self.num_calls >= self._fails_at

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Put it in the place of the operating system."""
        monkeypatch.setattr(local, "os", self)
        monkeypatch.setattr(local, "open", self._open_file, raising=False)
        monkeypatch.setattr(listing, "os", self)

    def cut_power(self) -> None:
        """Lose what was not synchronised."""
        for _, undo in reversed(self._undo):
            undo()
        for path in Path(self._root).rglob("*"):
            if path.is_file() and path.stat().st_ino in self._unwritten:
                path.write_bytes(b"")

    def __getattr__(self, name: str) -> Any:
        function = getattr(os, name)
        if name not in _COUNTED:
            return function

        def call(*arguments: Any, **options: Any) -> Any:
            with self._lock:
                self._count(arguments[0])
                note = getattr(self, f"_note_{name}", None)
                if note is None:
                    return function(*arguments, **options)
                return note(*arguments, **options)

        return call

    def _count(self, path: Any) -> None:
        if self._is_dead:
            raise DeathError
        if isinstance(path, str) and not path.startswith(self._root):
            return
        self.num_calls += 1
        if self.num_calls == self._fails_at:
            if self._fault is Fault.ERROR:
                raise OSError(errno.EIO, "this call was to fail", path)
            self._is_dead = True
            if self._fault is Fault.POWER_CUT:
                self.cut_power()
            raise DeathError

    def _open_file(self, path: str, mode: str) -> IO[bytes]:
        with self._lock:
            self._count(path)
            if mode == "rb":
                return open(path, mode)
            file = _File(self, path)
            if path.startswith(self._root):
                self._undo.append((os.path.dirname(path), lambda: Path(path).unlink(missing_ok=True)))
                self._unwritten.add(os.fstat(file.fileno()).st_ino)
            return file

    def _note_open(self, path: str, flags: int) -> int:
        descriptor = os.open(path, flags)
        self._folders[descriptor] = path
        return descriptor

    def _note_fsync(self, descriptor: int) -> None:
        self._unwritten.discard(os.fstat(descriptor).st_ino)
        if (folder := self._folders.pop(descriptor, None)) is not None:
            self._undo = [(where, undo) for where, undo in self._undo if where != folder]

    def _note_link(self, source: str, target: str) -> None:
        os.link(source, target)
        self._undo.append((os.path.dirname(target), lambda: Path(target).unlink(missing_ok=True)))

    def _note_replace(self, source: str, target: str) -> None:
        before = Path(target).read_bytes() if os.path.exists(target) else None
        os.replace(source, target)
        self._undo.append((os.path.dirname(target), lambda: _put_back(target, before)))

    def _note_unlink(self, path: str) -> None:
        before = Path(path).read_bytes()
        os.unlink(path)
        self._undo.append((os.path.dirname(path), lambda: _put_back(path, before)))

    def _note_mkdir(self, path: str) -> None:
        os.mkdir(path)
        self._undo.append((os.path.dirname(path), lambda: shutil.rmtree(path, ignore_errors=True)))

    def tear(self, file: io.FileIO, data: bytes) -> int:
        """Write, or half of it where this is the call that fails."""
        with self._lock:
            try:
                self._count(self._root)
            except BaseException:
                if self.has_failed:
                    file.write(data[: len(data) // 2])
                raise
        return file.write(data)


class _File(io.FileIO):
    def __init__(self, disk: FaultyDisk, path: str) -> None:
        super().__init__(path, "xb")
        self._disk = disk

    def write(self, data: Any) -> int:
        return self._disk.tear(super(), data)  # type: ignore[arg-type]


def _put_back(path: str, content: bytes | None) -> None:
    if content is None:
        Path(path).unlink(missing_ok=True)
    elif os.path.isdir(os.path.dirname(path)):
        Path(path).write_bytes(content)
