"""A local file system that does what a test tells it: `faulty://user:password@host/absolute/path`.

Files in the folder that BLS_TEST_FAULTS names decide what becomes of a reading of `.../NAME`, or a listing of it:
`wait-NAME` holds it back for as long as that exists, with the process in `reached-NAME-PID`; `wait-all` does so with
every reading; `die-NAME` ends the process as a fault of native code does; `fail-NAME` holds the message of its error.
"""

import ctypes
import os
import re
import time
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem

_URI = re.compile(r"faulty://[^/]*")


class FaultyFileSystem(LocalFileSystem):  # type: ignore[misc]
    """Local files with faults."""

    protocol = "faulty"

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(_URI.sub("", path)))

    def ls(self, path: str, detail: bool = False, **kwargs: Any) -> Any:
        """List a folder."""
        _suffer(path)
        return super().ls(self._strip_protocol(path), detail=detail, **kwargs)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> Any:
        """Read a file."""
        _suffer(path, also="wait-all")
        return super().cat_file(self._strip_protocol(path), start=start, end=end, **kwargs)


def _suffer(path: str, *, also: str = "") -> None:
    faults, name = Path(os.environ["BLS_TEST_FAULTS"]), path.rstrip("/").rpartition("/")[2]
    (faults / f"reached-{name}-{os.getpid()}").touch()
    while any((faults / wait).exists() for wait in (f"wait-{name}", also) if wait):
        time.sleep(0.02)
    if (faults / f"die-{name}").exists():
        ctypes.string_at(0)
    if (faults / f"fail-{name}").exists():
        raise PermissionError((faults / f"fail-{name}").read_text())
