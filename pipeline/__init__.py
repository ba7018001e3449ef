"""Datasets: rows in, rows out. Storage, images, shards, and Ray around the codec.

For programs of others: `compress_dataset` and `decompress_dataset` are the jobs; `read_compressed` and
`CompressedImages` read a compressed dataset back; `CompressImages` compresses the batches of any dataset;
`collate_symbols` and `DeviceDecoder` decode on the training device; `bitstream_files` and `DecompressImages` are for
other readers of Parquet. They are loaded when they are first named, torch and Ray with them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.api import compress_dataset, decompress_dataset
    from pipeline.compress.batches import CompressImages
    from pipeline.read.batches import DecompressImages
    from pipeline.read.dataset import bitstream_files
    from pipeline.read.ray_dataset import read_compressed
    from pipeline.read.torch_dataset import CompressedImages
    from pipeline.read.training.device import DeviceDecoder, collate_symbols

_PLACES = {
    "CompressImages": "pipeline.compress.batches",
    "CompressedImages": "pipeline.read.torch_dataset",
    "DecompressImages": "pipeline.read.batches",
    "DeviceDecoder": "pipeline.read.training.device",
    "bitstream_files": "pipeline.read.dataset",
    "collate_symbols": "pipeline.read.training.device",
    "compress_dataset": "pipeline.api",
    "decompress_dataset": "pipeline.api",
    "read_compressed": "pipeline.read.ray_dataset",
}

__all__ = [
    "CompressImages",
    "CompressedImages",
    "DecompressImages",
    "DeviceDecoder",
    "bitstream_files",
    "collate_symbols",
    "compress_dataset",
    "decompress_dataset",
    "read_compressed",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
