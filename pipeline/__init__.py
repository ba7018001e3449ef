"""Datasets: rows in, rows out. Storage, images, shards, and Ray around the codec.

For programs of others: `read_compressed` and `CompressedImages` read a compressed dataset back, `CompressImages`
compresses the batches of any dataset. They are loaded when they are first named, torch and Ray with them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.batch_compressor import CompressImages as CompressImages
    from pipeline.ray_data import read_compressed as read_compressed
    from pipeline.torch_data import CompressedImages as CompressedImages

_PLACES = {
    "CompressImages": "pipeline.batch_compressor",
    "CompressedImages": "pipeline.torch_data",
    "read_compressed": "pipeline.ray_data",
}

__all__ = ["CompressImages", "CompressedImages", "read_compressed"]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)
