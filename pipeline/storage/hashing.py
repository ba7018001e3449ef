"""What is written, hashed on its way: nothing is read a second time."""

import hashlib
from typing import Protocol


class Readable(Protocol):
    """An open file, as far as writing needs one."""

    def read(self, num_bytes: int = -1, /) -> bytes:
        """Return the next bytes, none at the end."""
        ...


class HashingReader:
    """An open file that counts and hashes what is read of it."""

    def __init__(self, file: Readable) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()
        self.num_bytes = 0

    def read(self, num_bytes: int = -1, /) -> bytes:
        """Return the next bytes."""
        data = self._file.read(num_bytes)
        self._sha256.update(data)
        self.num_bytes += len(data)
        return data

    @property
    def sha256(self) -> str:
        """The hash of what was read so far, hexadecimal."""
        return self._sha256.hexdigest()
