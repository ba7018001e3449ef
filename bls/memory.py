"""Keep what the transforms free for what they take next: without, half of their time can go into page faults.

An image's activations are dozens of megabytes, freed after each layer and taken again by the next. glibc gives memory
back to the system when as little as 128 kB lie free at the end of its heap, and takes blocks of more than 32 MB from
the system each time. Every page taken anew is a fault that the kernel answers with zeros: up to 18,000 a megapixel.
How many it is depends on what else the process allocated, and where (docs/decisions/0012-freed-memory.md).
"""

import ctypes
import os
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Of mallopt(3)."""

MAX_KEPT_BYTES = 256 << 20
"""So much may lie free at the end of a heap."""
MAX_HEAP_BLOCK_BYTES = 128 << 20
"""Blocks up to this size come from the heap: the largest activations of a tile of 1024 pixels, in float32 at 192
filters, are half of it."""


def keep_freed_memory() -> None:
    """Have glibc keep freed memory for the process, unless the user has set its allocator up or it is another one."""
    is_set_up = any(name.startswith("MALLOC_") for name in os.environ) or "malloc" in os.environ.get(
        "GLIBC_TUNABLES", ""
    )
    if not sys.platform.startswith("linux") or is_set_up:
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # musl has none
        mallopt(_M_TRIM_THRESHOLD, MAX_KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, MAX_HEAP_BLOCK_BYTES)
