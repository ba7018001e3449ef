"""Files of any file system that fsspec knows: list, read, write at once or not at all, delete.

A URI is a local path, with or without `file://`, or `scheme://...`. Paths are taken literally: `#`, `?`, `%` and spaces
are ordinary characters. User and password of a URI reach the file system and nothing else.
"""

import contextlib
import errno
import io
import os
import re
import shutil
import stat
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Protocol

import fsspec
from pyarrow.fs import FileSystem, FSSpecHandler, PyFileSystem

from pipeline.listing import walk_local, walk_remote
from pipeline.retries import Retrying, client_options

TEMPORARY_PREFIX = ".tmp-"  # of local files that are being written
_TEMPORARY = re.compile(re.escape(TEMPORARY_PREFIX) + "[0-9a-f]{32}")
_NUM_THREADS = 16  # for many small requests, each of which mostly waits
_NO_CONDITIONS = frozenset((errno.ENOSYS, errno.ENOTSUP))
_COPY_NUM_BYTES = 2**22
_BLOCK_NUM_BYTES = 2**20  # that a remote file which is read in places reads ahead
_NO_LINKS = frozenset((errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS))

_SCHEME = re.compile(r"^([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_USER_INFO = re.compile(r"\b([a-z][a-z0-9+.-]*://)[^/\s]*@", re.IGNORECASE)


# What storage services and their clients put into errors and signed addresses: names of secrets with their values.
_SECRETS = re.compile(
    r"""(\b(?:aws_?)?(?:access_?key_?id|secret_?access_?key|session_?token)["']?\s*[=:>]\s*["']?
    |\bx-(?:amz|goog)-(?:signature|credential|security-token)=
    |(?<![/\w-])(?:account_?key|shared_?access_?signature|password|signature|secret|token|sig)=["']?)
    [^\s"'&<>;,)]+""",
    re.IGNORECASE | re.VERBOSE,
)
_AWS_KEY_ID = re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}\b")


class UnsafeNameError(ValueError):
    """A name that would lead out of its folder."""


def redact(text: str) -> str:
    """Drop what opens a storage from a text: user and password of every URI, keys, tokens and signatures."""
    return _AWS_KEY_ID.sub("...", _SECRETS.sub(r"\1...", _USER_INFO.sub(r"\1", text)))


class Folder(Protocol):
    """A folder of a file system; its files are named by their path below it, parts joined by `/`.

    `str(folder)` is its URI without credentials. Every method raises UnsafeNameError for a name that leads out.
    """

    def child(self, name: str) -> "Folder":
        """Return a folder below this one."""
        ...

    def exists(self) -> bool:
        """Tell whether there is a folder here (in object stores: anything below it)."""
        ...

    def holds(self, name: str) -> bool:
        """Tell whether there is a file of this name."""
        ...

    def walk(self, enter: Callable[[str], bool] = lambda name: True) -> Iterator[Sequence[str]]:
        """List the names of all files below, folder by folder: the sorted files of one, then its sorted subfolders.

        Subfolders that are not to be entered are left out. A folder that is not there has no files.
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

    def write_from(self, name: str, file: IO[bytes]) -> None:
        """Write what is left of an open file, at once, without holding it in memory.

        In an object store a failure may leave less of it: for files that count only when something else says so.
        """
        ...

    def create(self, name: str, data: bytes) -> bool:
        """Write a file at once unless there is one; return whether this call made it."""
        ...

    def delete(self, name: str) -> None:
        """Delete a file; one that is gone already is no error."""
        ...

    def to_arrow(self) -> tuple[FileSystem | None, str]:
        """Return PyArrow's file system and the path in it, for libraries that take these; None is the local one."""
        ...


def open_folder(uri: str) -> Folder:
    """Return the folder that a URI names, whether it exists or not.

    Raises:
        ValueError: no file system for the URI's scheme, or its package is not installed.
    """
    uri = absolute(uri)
    return LocalFolder(uri) if _SCHEME.match(uri) is None else RemoteFolder(uri.rstrip("/"))


def absolute(uri: str) -> str:
    """Return a URI that means the same in every process: local paths absolute and without a scheme."""
    scheme = _SCHEME.match(uri)
    if scheme is None or scheme[1].lower() in ("file", "local"):
        return os.path.abspath(_SCHEME.sub("", uri))
    return uri


def check_name(name: str) -> str:
    """Return a name that stays below its folder.

    Raises:
        UnsafeNameError: the name is absolute or has an empty, `.` or `..` part.
    """
    if "\0" in name or any(part in ("", ".", "..") for part in name.split("/")):
        raise UnsafeNameError(f"name {name!r} would not stay inside its folder: expected a relative path without '..'")
    return name


def is_temporary(name: str) -> bool:
    """Return whether a file is one of those that a killed write of ours leaves behind."""
    return _TEMPORARY.fullmatch(name.rpartition("/")[2]) is not None


def overlaps(uri: str, other: str) -> bool:
    """Return whether two URIs name the same place, or one a place inside of the other; links are followed."""
    first, second = _place(uri), _place(other)
    return f"{first}/".startswith(f"{second}/") or f"{second}/".startswith(f"{first}/")


def _place(uri: str) -> str:
    uri = absolute(uri)
    scheme = _SCHEME.match(uri)
    if scheme is None:
        return os.path.realpath(uri).rstrip("/")
    path = "/".join(part for part in _USER_INFO.sub(r"\1", uri)[scheme.end() :].split("/") if part)
    return f"{scheme[0].lower()}{path}"


def list_names(folder: Folder) -> Iterator[str]:
    """List the names of all files below a folder, one by one."""
    for names in folder.walk():
        yield from names


def read_many(folder: Folder, names: Iterable[str]) -> list[bytes]:
    """Read files, several at a time, in order."""
    with ThreadPoolExecutor(_NUM_THREADS) as executor:
        return list(executor.map(folder.read, names))


def hold_many(folder: Folder, names: Iterable[str]) -> list[bool]:
    """Return of each name whether there is a file, asking for several at a time."""
    with ThreadPoolExecutor(_NUM_THREADS) as executor:
        return list(executor.map(folder.holds, names))


def delete_many(folder: Folder, names: Iterable[str]) -> None:
    """Delete files, several at a time."""
    with ThreadPoolExecutor(_NUM_THREADS) as executor:
        list(executor.map(folder.delete, names))


class LocalFolder:
    """A folder of this machine."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __str__(self) -> str:
        return self._path

    def child(self, name: str) -> Folder:
        """Return a folder below this one."""
        return LocalFolder(self._join(name))

    def exists(self) -> bool:
        """Tell whether there is a folder here."""
        return os.path.isdir(self._path)

    def holds(self, name: str) -> bool:
        """Tell whether there is a file of this name."""
        return os.path.isfile(self._join(name))

    def walk(self, enter: Callable[[str], bool] = lambda name: True) -> Iterator[Sequence[str]]:
        """List all files below, folder by folder. Links to folders are followed, but never round in a circle.

        Of a folder with millions of files the names are held as bytes: their length and 24 bytes each.
        """
        if self.exists():
            yield from walk_local(self._path, enter=enter)

    def open(self, name: str) -> IO[bytes]:
        """Open a file to read it in places."""
        path = self._join(name)
        # Opening a named pipe would wait for ever.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        return open(path, "rb")

    def read(self, name: str) -> bytes:
        """Read a file whole."""
        with self.open(name) as file:
            return file.read()

    def read_range(self, name: str, start: int, num_bytes: int) -> bytes:
        """Read a part of a file."""
        with self.open(name) as file:
            file.seek(start)
            return file.read(num_bytes)

    def write(self, name: str, data: bytes) -> None:
        """Write a file by renaming a temporary file of the same folder, both on the disk before this returns."""
        path = self._join(name)
        with _temporary_file(os.path.dirname(path), io.BytesIO(data)) as temporary:
            os.replace(temporary, path)

    def write_from(self, name: str, file: IO[bytes]) -> None:
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
        """Delete a file; one that is gone already is no error."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._join(name))

    def to_arrow(self) -> tuple[FileSystem | None, str]:
        """Return the local file system, and the path."""
        return None, self._path

    def _join(self, name: str) -> str:
        return os.path.join(self._path, check_name(name))


class RemoteFolder:
    """A folder of an object store or another file system that fsspec knows; a write is a single put.

    What fails for a moment is tried again, see pipeline/retries.py.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        scheme = _SCHEME.match(uri)
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
        return redact(self._uri)

    def child(self, name: str) -> Folder:
        """Return a folder below this one."""
        return RemoteFolder(f"{self._uri}/{check_name(name)}")

    def exists(self) -> bool:
        """Tell whether there is anything below this name."""
        try:
            return bool(self._filesystem.info(self._path)["type"] == "directory")
        except FileNotFoundError:  # isdir would take any other error for a no, too
            return False

    def holds(self, name: str) -> bool:
        """Tell whether there is a file of this name."""
        try:
            return bool(self._filesystem.info(self._join(name))["type"] == "file")
        except FileNotFoundError:
            return False

    def walk(self, enter: Callable[[str], bool] = lambda name: True) -> Iterator[Sequence[str]]:
        """List all files below, folder by folder, up to 16 at a time.

        Where the store is not S3, fsspec lists a folder at once, about a kilobyte per file: of one folder with many
        millions make a list instead.
        """
        if self.exists():
            yield from walk_remote(self._filesystem, self._path, enter=enter)

    def open(self, name: str) -> IO[bytes]:
        """Open a file to read it in places."""
        file: IO[bytes] = self._filesystem.open(self._join(name), "rb", block_size=_BLOCK_NUM_BYTES)
        return file

    def read(self, name: str) -> bytes:
        """Read a file whole."""
        return bytes(self._filesystem.cat_file(self._join(name)))

    def read_range(self, name: str, start: int, num_bytes: int) -> bytes:
        """Read a part of a file with one request."""
        return bytes(self._filesystem.cat_file(self._join(name), start=start, end=start + num_bytes))

    def write(self, name: str, data: bytes) -> None:
        """Write a file with a single put."""
        self._filesystem.pipe_file(self._join(name), data)

    def write_from(self, name: str, file: IO[bytes]) -> None:
        """Write what is left of an open file, in parts where it is large; nobody sees it before the last."""
        with self._filesystem.open(self._join(name), "wb") as target:
            shutil.copyfileobj(file, target, _COPY_NUM_BYTES)

    def create(self, name: str, data: bytes) -> bool:
        """Write a file with a conditional put; where the store has none, look before the write.

        False may also mean that the put succeeded and its answer was lost: what is stored tells.
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
        """Delete a file; one that is gone already is no error."""
        with contextlib.suppress(FileNotFoundError):
            self._filesystem.rm_file(self._join(name))

    def to_arrow(self) -> tuple[FileSystem | None, str]:
        """Return the file system with its credentials, and the path in it."""
        return PyFileSystem(FSSpecHandler(self._raw_filesystem)), self._path

    def _join(self, name: str) -> str:
        return f"{self._path}/{check_name(name)}"


@contextlib.contextmanager
def _temporary_file(folder: str, content: IO[bytes]) -> Iterator[str]:
    """Write a temporary file for the caller to move or link inside the folder, then make that last and tidy up."""
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, TEMPORARY_PREFIX + uuid.uuid4().hex)
    try:
        with open(path, "xb") as file:
            shutil.copyfileobj(content, file, _COPY_NUM_BYTES)
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


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
