"""An image coded and decoded again by our codec or another: the files, what they measure, and the time that they took.

Times are CPU seconds of this process; those of a process that does one thing at a time are those of one thread.
"""

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from bls.codec import Codec, make_header
from bls.entropy.coders import CODERS
from bls.measures import images as measures
from bls.pixels import Pixels
from pipeline import baselines
from pipeline.evaluate.ssimulacra2 import ssimulacra2
from pipeline.images import ImageError
from pipeline.status import Status

OURS = "bls"

Row = dict[str, Any]
T = TypeVar("T")


def our_name(coder: str) -> str:
    """Return the name of our codec with an entropy coder, beside the others."""
    return f"{OURS}-{coder}"


def code_ours(codec: Codec, x: Pixels, *, quality: float, effort: int) -> list[Row]:
    """Code an image with every entropy coder; return a row of each. The picture, and so its measures, are the same.

    Raises:
        ImageError: a bitstream does not give its symbols back.
    """
    (symbols,), analysis = timed(lambda: codec.analyze([x], quality=quality, effort=effort))
    rows, decoded = [], []
    for coder in CODERS:
        header = make_header(x, quality=quality, coder=coder)
        bitstream, encoding = timed(partial(codec.encode, symbols, header=header))
        given, decoding = timed(partial(codec.decode, bitstream))
        if not (given[1] == symbols).all():
            raise ImageError(Status.FAILED, f"the {coder} bitstream does not give its symbols back")
        decoded.append(given)
        row = {"codec": our_name(coder), "effort": effort, **size(x, len(bitstream))}
        rows.append({**row, "encode_seconds": analysis + encoding, "decode_seconds": decoding})
    (x_hat,), synthesis = timed(lambda: codec.synthesize(decoded[:1]))
    bits = codec.estimate_bits(symbols, quality=quality)
    columns = {**measure(x, x_hat), "estimated_bpp": bits / (x.shape[0] * x.shape[1])}
    return [{**row, **columns, "decode_seconds": row["decode_seconds"] + synthesis} for row in rows]


def code_other(x: Pixels, codec: str, setting: float) -> Row:
    """Code an image with another codec; return its row."""
    data, encoding = timed(lambda: baselines.encode(x, codec, setting))
    x_hat, decoding = timed(lambda: baselines.decode(data, gray=x.ndim == 2))
    times = {"encode_seconds": encoding, "decode_seconds": decoding}
    return {"codec": codec, **size(x, len(data)), **measure(x, x_hat), **times}


def timed(call: Callable[[], T]) -> tuple[T, float]:
    """Return what a call returns, and the CPU seconds that this process took for it."""
    start = time.process_time()
    result = call()
    return result, time.process_time() - start


def size(x: Pixels, num_bytes: int) -> Row:
    """Return the size of what an image was coded to."""
    return {"num_bytes": num_bytes, "bpp": measures.bpp(num_bytes, height=x.shape[0], width=x.shape[1])}


def measure(x: Pixels, x_hat: Pixels) -> Row:
    """Return the measures of a decoded image; those that do not exist are None, as PSNR where there is no error."""
    mse_255, psnr_luma_db = measures.mse_255(x, x_hat), measures.psnr_luma_db(x, x_hat)
    return {
        "mse_255": mse_255,
        "psnr_db": measures.psnr_db(mse_255) if mse_255 > 0 else None,
        "psnr_luma_db": psnr_luma_db if math.isfinite(psnr_luma_db) else None,
        "ms_ssim": measures.ms_ssim(x, x_hat),
        "nlpd": measures.nlpd(x, x_hat),
        "ssimulacra2": ssimulacra2(x, x_hat),
    }
