"""Listings of folders, folder by folder: the sorted files of one, then its sorted subfolders.

Millions of names of one folder are held packed, not as Python objects.
"""

import errno
import itertools
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, overload

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.ahead import ExpectedCost, ahead

MAX_PLAIN_NAMES = 50_000  # of a folder that are held as they are; of larger folders names are packed
_FOLDERS_AHEAD, _NAMES_AHEAD = 16, 200_000
PAGE_SIZE = 1000  # of a listing of S3, the most that it gives


class _PackedNames(Sequence[str]):
    """Sorted names behind a prefix, held as bytes in an Arrow array and made strings one by one."""

    def __init__(self, prefix: str, names: pa.Array) -> None:
        self._prefix = prefix
        self._names = names.take(pc.array_sort_indices(names))

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return [self._prefix + os.fsdecode(name) for name in self._names[index].to_pylist()]
        return self._prefix + os.fsdecode(self._names[index].as_py())

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), MAX_PLAIN_NAMES):
            yield from self[start : start + MAX_PLAIN_NAMES]


def _sorted_names(prefix: str, names: Iterable[str]) -> Sequence[str]:
    """Sort the names of a folder, which may be millions."""
    iterator = iter(names)
    head = list(itertools.islice(iterator, MAX_PLAIN_NAMES))
    if len(head) < MAX_PLAIN_NAMES:
        return [prefix + name for name in sorted(head)]
    packed = []
    while head:
        packed.append(pa.array(map(os.fsencode, head), pa.large_binary()))
        head = list(itertools.islice(iterator, MAX_PLAIN_NAMES))
    return _PackedNames(prefix, pa.concat_arrays(packed))


LeaveOut = Callable[[str, str], None]
"""Called with the name of each entry that is left out of a listing, and why."""
_IN_A_CIRCLE = "links in a circle"


def walk_local(
    folder: str,
    prefix: str = "",
    above: frozenset[str] = frozenset(),
    *,
    enter: Callable[[str], bool],
    leave_out: LeaveOut | None = None,
) -> Iterator[Sequence[str]]:
    """List a folder of this machine and those below it that are to be entered, except those that it is in itself.

    With `leave_out`, entries that are not files and never will be are left out; without it everything but folders is
    named.
    """
    real_path = os.path.realpath(folder)
    if real_path in above:
        if leave_out is not None:
            leave_out(prefix.rstrip("/"), _IN_A_CIRCLE)
        return
    folders: list[str] = []

    def files() -> Iterator[str]:
        with os.scandir(folder) as entries:
            for entry in entries:
                kind = _kind(entry)
                if kind == "folder":
                    folders.append(entry.name)
                elif kind == "file" or leave_out is None:
                    yield entry.name
                else:
                    leave_out(prefix + entry.name, kind)

    yield _sorted_names(prefix, files())
    for name in sorted(folders):
        if enter(prefix + name):
            yield from walk_local(
                os.path.join(folder, name), f"{prefix}{name}/", above | {real_path}, enter=enter, leave_out=leave_out
            )


def _kind(entry: os.DirEntry[str]) -> str:
    """Return `folder`, `file`, or in the plural what else an entry is; what cannot be looked at may be a file."""
    try:
        if entry.is_dir():
            return "folder"
        if entry.is_file():
            return "file"
        mode = entry.stat().st_mode
    except OSError as error:
        return _IN_A_CIRCLE if error.errno == errno.ELOOP else "file"
    if stat.S_ISFIFO(mode):
        return "named pipes"
    return "sockets" if stat.S_ISSOCK(mode) else "devices"


def walk_remote(filesystem: Any, folder: str, *, enter: Callable[[str], bool]) -> Iterator[Sequence[str]]:
    """List a folder of one of fsspec's file systems and those below it that are to be entered.

    Folders are listed before it is their turn, some at a time: each takes a request or more, and datasets of a folder
    per class or per day have many. Of large folders fewer are listed ahead.
    """
    expected = ExpectedCost(_NAMES_AHEAD)
    executor = ThreadPoolExecutor(_FOLDERS_AHEAD)

    def list_folder(prefix: str) -> tuple[str, Sequence[str], list[str]]:
        return prefix, *_list_remote(filesystem, f"{folder}/{prefix}".rstrip("/"), prefix)

    def walk(prefix: str, names: Sequence[str], folders: Sequence[str]) -> Iterator[Sequence[str]]:
        yield names
        del names
        entered = (f"{prefix}{name}/" for name in folders if enter(prefix + name))
        listings = ahead(
            executor, list_folder, entered, window=_FOLDERS_AHEAD, cost=lambda _: expected.value, max_cost=_NAMES_AHEAD
        )
        for listed in listings:
            expected.saw(len(listed[1]) + len(listed[2]))
            yield from walk(*listed)

    try:
        yield from walk(*list_folder(""))
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


def _list_remote(filesystem: Any, folder: str, prefix: str) -> tuple[Sequence[str], list[str]]:
    """Return the sorted files of a folder, behind a prefix, and its sorted subfolders."""
    folders: list[str] = []

    def files() -> Iterator[str]:
        for path, is_folder in _entries(filesystem, folder):
            name = path.rpartition("/")[2]
            # Object stores may list a folder's own empty marker object inside it.
            if path == folder.rstrip("/"):
                continue
            if is_folder:
                folders.append(name)
            else:
                yield name

    names = _sorted_names(prefix, files())
    return names, sorted(folders)


def _entries(filesystem: Any, folder: str) -> Iterator[tuple[str, bool]]:
    """List a folder: paths, and whether they are folders; S3 page by page, other stores as fsspec does, at once."""
    if not hasattr(filesystem, "call_s3"):
        for entry in filesystem.ls(folder, detail=True):
            yield entry["name"].rstrip("/"), entry["type"] == "directory"
        return
    bucket, _, key = folder.partition("/")
    request = {"Bucket": bucket, "Prefix": key and f"{key}/", "Delimiter": "/", "MaxKeys": PAGE_SIZE}
    while True:
        page = filesystem.call_s3("list_objects_v2", **request)
        for item in page.get("CommonPrefixes", ()):
            yield f"{bucket}/{item['Prefix']}".rstrip("/"), True
        for item in page.get("Contents", ()):
            yield f"{bucket}/{item['Key']}".rstrip("/"), False
        if not page.get("IsTruncated"):
            return
        request["ContinuationToken"] = page["NextContinuationToken"]
