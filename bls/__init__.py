"""A learned image codec: tensors and bytes.

`Codec` is imported on first use, so that code which only reads bitstreams never loads torch.
"""

import os
from typing import TYPE_CHECKING

from bls.bitstream import BitstreamError

if TYPE_CHECKING:
    from bls.codec import Codec

__all__ = ["BitstreamError", "Codec"]

# Tensors of 2 MB and more in huge pages (docs/decisions/0012-huge-pages.md). PyTorch asks once, at its first tensor.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def __getattr__(name: str) -> object:
    if name == "Codec":
        from bls.codec import Codec

        return Codec
    raise AttributeError(f"module 'bls' has no attribute {name!r}")
