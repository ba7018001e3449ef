"""Folders of this machine."""

import contextlib
import errno
import io
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import IO

from pyarrow.fs import FileSystem

from pipeline.storage.folder import COPY_NUM_BYTES, TEMPORARY_PREFIX, Folder
from pipeline.storage.hashing import Readable
from pipeline.storage.listing import LeaveOut, walk_local
from pipeline.storage.uris import check_name

_NO_LINKS = frozenset((errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS))


class LocalFolder:
    """A folder of this machine; `Folder` says what its methods do, here stands how."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __str__(self) -> str:
        return self._path

    def child(self, name: str) -> Folder:
        return LocalFolder(self._join(name))

    def exists(self) -> bool:
        return os.path.isdir(self._path)

    def holds(self, name: str) -> bool:
        return os.path.isfile(self._join(name))

    def num_bytes(self, name: str) -> int:
        return os.stat(self._join(name)).st_size

    def walk(
        self, enter: Callable[[str], bool] = lambda name: True, leave_out: LeaveOut | None = None
    ) -> Iterator[Sequence[str]]:
        """List all files below, folder by folder. Links to folders are followed, but never round in a circle.

        Of a folder with millions of files the names are held as bytes: their length and 24 bytes each.
        """
        if self.exists():
            yield from walk_local(self._path, enter=enter, leave_out=leave_out)

    def open(self, name: str) -> IO[bytes]:
        path = self._join(name)
        # Opening a named pipe would wait for ever.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        return open(path, "rb")

    def read(self, name: str) -> bytes:
        with self.open(name) as file:
            return file.read()

    def read_range(self, name: str, start: int, num_bytes: int) -> bytes:
        with self.open(name) as file:
            file.seek(start)
            return file.read(num_bytes)

    def write(self, name: str, data: bytes) -> None:
        """Write a file by renaming a temporary file of the same folder, both on the disk before this returns."""
        path = self._join(name)
        with _temporary_file(os.path.dirname(path), io.BytesIO(data)) as temporary:
            os.replace(temporary, path)

    def write_from(self, name: str, file: Readable) -> None:
        """Write what is left of an open file, as `write`."""
        path = self._join(name)
        with _temporary_file(os.path.dirname(path), file) as temporary:
            os.replace(temporary, path)

    def create(self, name: str, data: bytes) -> bool:
        """Write a file by linking a temporary file of the same folder, which fails where there is one.

        File systems without links, such as FAT and some network shares, are looked at before the file is renamed.
        """
        path = self._join(name)
        try:
            with _temporary_file(os.path.dirname(path), io.BytesIO(data)) as temporary:
                _name(temporary, path)
        except FileExistsError:
            return False
        return True

    def delete(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._join(name))

    def to_arrow(self) -> tuple[FileSystem | None, str]:
        return None, self._path

    def _join(self, name: str) -> str:
        return os.path.join(self._path, check_name(name))


@contextlib.contextmanager
def _temporary_file(folder: str, content: Readable) -> Iterator[str]:
    """Write a temporary file for the caller to move or link inside the folder, then make that last and tidy up."""
    _make_folder(folder)
    path = os.path.join(folder, TEMPORARY_PREFIX + uuid.uuid4().hex)
    try:
        with open(path, "xb") as file:
            shutil.copyfileobj(content, file, COPY_NUM_BYTES)
            file.flush()
            os.fsync(file.fileno())
        yield path
        _sync_folder(folder)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def _name(temporary: str, path: str) -> None:
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path) from error
        os.replace(temporary, path)


def _make_folder(folder: str) -> None:
    """Make a folder and those that it is in, all on the disk before this returns."""
    if os.path.isdir(folder):
        return
    parent = os.path.dirname(folder)
    _make_folder(parent)
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder)
    _sync_folder(parent)


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
