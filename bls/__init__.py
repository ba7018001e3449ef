"""A learned image codec: tensors and bytes.

`Codec` is imported on first use, so that code which only reads bitstreams never loads torch.
"""

import os
from typing import TYPE_CHECKING

from bls.bitstream import BitstreamError

if TYPE_CHECKING:
    from bls.codec import Codec

__all__ = ["BitstreamError", "Codec", "use_huge_pages"]


def use_huge_pages() -> None:
    """Let PyTorch put tensors of 2 MB and more into huge pages, for speed (docs/decisions/0012-huge-pages.md).

    PyTorch asks once in a process, at its first tensor: call this before. A value that the user has set stays. The jobs
    and `python -m bls` call it; a program that imports the codec decides for itself.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def __getattr__(name: str) -> object:
    if name == "Codec":
        from bls.codec import Codec

        return Codec
    raise AttributeError(f"module 'bls' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
