"""A learned image codec: tensors and bytes.

`Codec` is imported on first use, so that code which only reads bitstreams never loads torch.
"""

from typing import TYPE_CHECKING

from bls.bitstream import BitstreamError

if TYPE_CHECKING:
    from bls.codec import Codec

__all__ = ["BitstreamError", "Codec"]


def __getattr__(name: str) -> object:
    if name == "Codec":
        from bls.codec import Codec

        return Codec
    raise AttributeError(f"module 'bls' has no attribute {name!r}")
