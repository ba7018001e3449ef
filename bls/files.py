"""Files that are written whole or not at all."""

import os
from collections.abc import Callable
from pathlib import Path


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let a file be written under a temporary name beside it, then give it its own.

    The temporary name keeps the extension, from which libraries infer the format. If writing fails, nothing is left.
    """
    temporary = path.with_name(f".{path.stem}.tmp{path.suffix}")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_file(path: Path, data: bytes) -> None:
    """Write a file whole."""
    replace_file(path, lambda temporary: temporary.write_bytes(data))
