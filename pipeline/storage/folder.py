"""Files of any file system that fsspec knows: list, read, write at once or not at all, delete.

A URI is a local path, with or without `file://`, or `scheme://...`. Paths are taken literally: `#`, `?`, `%` and spaces
are ordinary characters. User and password of a URI reach the file system and nothing else.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Protocol

from pyarrow.fs import FileSystem

from pipeline.storage.hashing import Readable
from pipeline.storage.listing import LeaveOut

TEMPORARY_PREFIX = ".tmp-"  # of local files that are being written
_TEMPORARY = re.compile(re.escape(TEMPORARY_PREFIX) + "[0-9a-f]{32}")
_NUM_THREADS = 16  # for many small requests, each of which mostly waits
COPY_NUM_BYTES = 2**22


class Folder(Protocol):
    """A folder of a file system; its files are named by their path below it, parts joined by `/`.

    `str(folder)` is its URI without credentials. Every method raises UnsafeNameError for a name that leads out.
    """

    def child(self, name: str) -> "Folder":
        """Return a folder below this one."""
        ...

    def exists(self) -> bool:
        """Return whether there is a folder here (in object stores: anything below it)."""
        ...

    def holds(self, name: str) -> bool:
        """Return whether there is a file of this name."""
        ...

    def num_bytes(self, name: str) -> int:
        """Return the size of a file.

        Raises:
            FileNotFoundError: there is none.
        """
        ...

    def walk(
        self, enter: Callable[[str], bool] = lambda name: True, leave_out: LeaveOut | None = None
    ) -> Iterator[Sequence[str]]:
        """List the names of all files below, folder by folder: the sorted files of one, then its sorted subfolders.

        Subfolders that are not to be entered are left out. A folder that is not there has no files. With `leave_out`,
        entries that can never be read as files are left out, too: pipes, sockets, devices, links in a circle.
        """
        ...

    def open(self, name: str) -> IO[bytes]:
        """Open a file to read it in places."""
        ...

    def read_range(self, name: str, start: int, num_bytes: int) -> bytes:
        """Read a part of a file with one request; a file that ends earlier gives less."""
        ...

    def read(self, name: str) -> bytes:
        """Read a file whole."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Write a file at once: readers see the old content or the new, and the new one lasts."""
        ...

    def write_from(self, name: str, file: Readable) -> None:
        """Write what is left of an open file, at once, without holding it in memory.

        In an object store a failure may leave less of it: for files that count only when something else says so.
        """
        ...

    def create(self, name: str, data: bytes) -> bool:
        """Write a file at once unless there is one; return whether this call made it."""
        ...

    def delete(self, name: str) -> None:
        """Delete a file; a file that is gone already is not an error."""
        ...

    def to_arrow(self) -> tuple[FileSystem | None, str]:
        """Return PyArrow's file system and the path in it, for libraries that take these; None is the local one."""
        ...


def is_temporary(name: str) -> bool:
    """Return whether a file is one of those that a killed write of ours leaves behind."""
    return _TEMPORARY.fullmatch(name.rpartition("/")[2]) is not None


def list_names(folder: Folder) -> Iterator[str]:
    """List the names of all files below a folder, one by one."""
    for names in folder.walk():
        yield from names


def read_many(folder: Folder, names: Iterable[str]) -> list[bytes]:
    """Read files, several at a time, in order."""
    with ThreadPoolExecutor(_NUM_THREADS) as executor:
        return list(executor.map(folder.read, names))


def hold_many(folder: Folder, names: Iterable[str]) -> list[bool]:
    """Return for each name whether there is a file, asking for several at a time."""
    with ThreadPoolExecutor(_NUM_THREADS) as executor:
        return list(executor.map(folder.holds, names))


def delete_many(folder: Folder, names: Iterable[str]) -> None:
    """Delete files, several at a time."""
    with ThreadPoolExecutor(_NUM_THREADS) as executor:
        list(executor.map(folder.delete, names))
