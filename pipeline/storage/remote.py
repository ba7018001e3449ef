"""Folders of object stores and of other file systems that fsspec knows."""

import contextlib
import errno
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import IO

import fsspec
from pyarrow.fs import FileSystem, FSSpecHandler, PyFileSystem

from pipeline.storage.folder import COPY_NUM_BYTES, Folder
from pipeline.storage.hashing import Readable
from pipeline.storage.listing import LeaveOut, walk_remote
from pipeline.storage.retries import Retrying, client_options
from pipeline.storage.secrets import redact, remember_secrets, without_credentials
from pipeline.storage.uris import SCHEME, check_name

_NO_CONDITIONS = frozenset((errno.ENOSYS, errno.ENOTSUP))
_BLOCK_NUM_BYTES = 2**20  # that are read ahead in a remote file which is read in places


class RemoteFolder:
    """A folder of an object store or another file system that fsspec knows; a write is a single put.

    `Folder` says what its methods do, here stands how. A request that fails for a moment is tried again, see
    pipeline/storage/retries.py.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        remember_secrets(uri)
        scheme = SCHEME.match(uri)
        options = client_options(scheme[1].lower()) if scheme else {}
        try:
            # A cached listing would not show what other processes wrote.
            self._raw_filesystem, self._path = fsspec.core.url_to_fs(uri, use_listings_cache=False, **options)
        except (ValueError, ImportError) as error:
            raise ValueError(f"cannot open {self}: {redact(str(error))}") from error
        self._filesystem = Retrying(self._raw_filesystem)

    def __reduce__(self) -> tuple[type["RemoteFolder"], tuple[str]]:
        return RemoteFolder, (self._uri,)

    def __str__(self) -> str:
        return without_credentials(self._uri)

    def child(self, name: str) -> Folder:
        return RemoteFolder(f"{self._uri}/{check_name(name)}")

    def exists(self) -> bool:
        try:
            return bool(self._filesystem.info(self._path)["type"] == "directory")
        except FileNotFoundError:  # isdir would take any other error for a no, too
            return False

    def holds(self, name: str) -> bool:
        try:
            return bool(self._filesystem.info(self._join(name))["type"] == "file")
        except FileNotFoundError:
            return False

    def num_bytes(self, name: str) -> int:
        return int(self._filesystem.info(self._join(name))["size"])

    def walk(
        self, enter: Callable[[str], bool] = lambda name: True, leave_out: LeaveOut | None = None
    ) -> Iterator[Sequence[str]]:
        """List all files below, folder by folder, up to 16 at a time.

        Where the store is not S3, fsspec lists a folder at once, about a kilobyte per file: of one folder with many
        millions make a list instead.
        """
        if self.exists():
            yield from walk_remote(self._filesystem, self._path, enter=enter)

    def open(self, name: str) -> IO[bytes]:
        file: IO[bytes] = self._filesystem.open(self._join(name), "rb", block_size=_BLOCK_NUM_BYTES)
        return file

    def read(self, name: str) -> bytes:
        return bytes(self._filesystem.cat_file(self._join(name)))

    def read_range(self, name: str, start: int, num_bytes: int) -> bytes:
        return bytes(self._filesystem.cat_file(self._join(name), start=start, end=start + num_bytes))

    def write(self, name: str, data: bytes) -> None:
        """Write a file with a single put."""
        self._filesystem.pipe_file(self._join(name), data)

    def write_from(self, name: str, file: Readable) -> None:
        """Write what is left of an open file, in parts where it is large; nobody sees it before the last."""
        with self._filesystem.open(self._join(name), "wb") as target:
            shutil.copyfileobj(file, target, COPY_NUM_BYTES)

    def create(self, name: str, data: bytes) -> bool:
        """Write a file with a conditional put; where the store has none, look before the write.

        False may also mean that the put succeeded and its answer was lost: look at the stored file.
        """
        path = self._join(name)
        if self._filesystem.exists(path):
            return False
        try:
            self._filesystem.pipe_file(path, data, mode="create")
        except OSError as error:  # stores differ in how they say that the condition failed
            if self._filesystem.exists(path):
                return False
            if error.errno not in _NO_CONDITIONS:
                raise
            self._filesystem.pipe_file(path, data)
        return True

    def delete(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._filesystem.rm_file(self._join(name))

    def to_arrow(self) -> tuple[FileSystem | None, str]:
        return PyFileSystem(FSSpecHandler(self._raw_filesystem)), self._path

    def _join(self, name: str) -> str:
        return f"{self._path}/{check_name(name)}"
