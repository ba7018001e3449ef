"""The way of every image that is compressed: analysed, entropy coded, and decoded again from its bitstream."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from bls.bitstream import BitstreamError
from bls.codec import Codec, Symbols, make_header
from bls.measures import images as measures
from pipeline.images import SourceImage
from pipeline.work.codec import DecodedItem
from pipeline.work.stages import run_batch


@dataclass
class CodedItem(DecodedItem):
    """An image being compressed; what no later stage needs is dropped."""

    image: SourceImage | None = None
    symbols: Symbols | None = None
    bitstream: bytes = b""


def analyze(codec: Codec, batch: Sequence[CodedItem], *, quality: float) -> None:
    """Transform and quantise the images of a batch."""
    good = [item for item in batch if item.ok]
    pixels = [item.image.pixels for item in good if item.image is not None]
    for item, symbols in run_batch(partial(codec.analyze, quality=quality), good, pixels, seconds="analysis_seconds"):
        item.symbols = symbols


def code(codec: Codec, item: CodedItem, *, quality: float, coder: str) -> None:
    """Encode the symbols, then decode what is going to be stored: from here on only that counts."""
    if item.ok:
        assert item.image is not None and item.symbols is not None
        symbols = item.symbols
        header = make_header(item.image.pixels, quality=quality, coder=coder)
        with item.stage("entropy_encode_seconds"):
            item.bitstream = codec.encode(symbols, header=header)
    if item.ok:
        with item.stage("entropy_decode_seconds"):
            item.decoded = codec.decode(item.bitstream)
            item.row["verified"] = item.decoded[0] == header and np.array_equal(item.decoded[1], symbols)
            if not item.row["verified"]:
                raise BitstreamError("the bitstream does not give its symbols back: please report this image")
            item.symbols = item.decoded[1]  # a second copy of a large image would count


def rate_and_distortion(item: CodedItem) -> dict[str, Any]:
    """Return the columns of the rate and the squared error of a decoded image."""
    assert item.image is not None and item.x_hat is not None
    height, width = item.x_hat.shape[:2]
    mse_255 = measures.mse_255(item.image.pixels, item.x_hat)
    return {
        "num_bytes": len(item.bitstream),
        "bpp": measures.bpp(len(item.bitstream), height=height, width=width),
        "mse_255": mse_255,
        "psnr_db": measures.psnr_db(mse_255) if mse_255 > 0 else None,
    }
