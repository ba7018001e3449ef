"""Files that are written whole or not at all."""

import os
import uuid
from collections.abc import Callable
from pathlib import Path


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let a file be written under a temporary name beside it, then give it its own.

    The temporary name is of no other file, and keeps the extension, from which libraries infer the format. If writing
    fails, nothing is left.
    """
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp{path.suffix}")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_file(path: Path, data: bytes) -> None:
    """Write a file whole."""
    replace_file(path, lambda temporary: temporary.write_bytes(data))
