"""The way of every image that is compressed: analysed, entropy coded, and decoded again from its bitstream.

The quality is given, or searched for an image to meet a target.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from bls.bitstream import Header
from bls.codec import Codec, Latents, Symbols, make_header
from bls.measures import images as measures
from bls.measures.ms_ssim import MS_SSIM_MIN_SIDE
from bls.targets import Target, compress_to_target, first_try
from pipeline.images import SourceImage
from pipeline.work.codec import DecodedItem, decode_again
from pipeline.work.stages import run_batch


@dataclass
class CodedItem(DecodedItem):
    """An image being compressed; a value that no later stage needs is dropped."""

    image: SourceImage | None = None
    latents: Latents | None = None  # for a target
    symbols: Symbols | None = None
    bitstream: bytes = b""
    ms_ssim: float | None = None  # as far as a search measured it


def analyze(codec: Codec, batch: Sequence[CodedItem], *, quality: float, coder: str, effort: int) -> None:
    """Transform and quantise the images of a batch; with effort, refine them for this coder."""
    good = [item for item in batch if item.ok]
    pixels = [item.image.pixels for item in good if item.image is not None]
    symbols_of = partial(codec.analyze, quality=quality, coder=coder, effort=effort)
    for item, symbols in run_batch(symbols_of, good, pixels, seconds="analysis_seconds"):
        item.symbols = symbols


def code(codec: Codec, item: CodedItem, *, quality: float, coder: str) -> None:
    """Encode the symbols, then decode the bitstream: later stages see only what a reader will see."""
    if item.ok:
        assert item.image is not None and item.symbols is not None
        symbols = item.symbols
        header = make_header(item.image.pixels, quality=quality, coder=coder)
        with item.stage("entropy_encode_seconds"):
            item.bitstream = codec.encode(symbols, header=header)
        _verify(codec, item, header)


def analyze_for_target(codec: Codec, batch: Sequence[CodedItem]) -> None:
    """Transform the images of a batch to the latents with which the search of each begins."""
    good = [item for item in batch if item.ok]
    pixels = [item.image.pixels for item in good if item.image is not None]
    latents = partial(codec.latents, quality=first_try(codec))
    for item, found in run_batch(latents, good, pixels, seconds="analysis_seconds"):
        item.latents = found


def code_to_target(codec: Codec, item: CodedItem, *, target: Target, coder: str, effort: int) -> None:
    """Search for the quality that meets a target, then decode the bitstream.

    An image without an MS-SSIM cannot be shown to meet one: it gets the best quality.
    """
    if item.ok:
        assert item.image is not None
        with item.stage():
            x = item.image.pixels
            if target.kind == "ms_ssim" and min(x.shape[:2]) < MS_SSIM_MIN_SIDE:
                quality, is_met = codec.quality_range[1], False
                (item.symbols,) = codec.analyze([x], quality=quality, coder=coder, effort=effort)
                item.bitstream = codec.encode(item.symbols, header=make_header(x, quality=quality, coder=coder))
            else:
                found = compress_to_target(codec, x, target, coder=coder, effort=effort, latents=item.latents)
                quality, is_met = found.quality, found.is_met
                item.bitstream, item.symbols, item.x_hat = found.bitstream, found.symbols, found.x_hat
                item.ms_ssim = found.ms_ssim
                for stage, seconds in found.seconds.items():
                    item.row[f"{stage}_seconds"] = item.row.get(f"{stage}_seconds", 0.0) + seconds
            item.row.update(quality_columns(codec, quality), target_met=is_met)
            header = make_header(x, quality=quality, coder=coder)
    item.latents = None
    if item.ok:
        _verify(codec, item, header)
        if item.x_hat is not None:
            item.decoded = None


def quality_columns(codec: Codec, quality: float) -> dict[str, Any]:
    """Return the columns of the quality of an image and of the network that codes it."""
    network = codec.bundle.network(quality)
    return {
        "quality": quality,
        "lmbda": codec.lmbda(quality),
        "model_fingerprint": network.fingerprint.hex(),
        "analysis_fingerprint": network.analysis_fingerprint.hex(),
    }


def _verify(codec: Codec, item: CodedItem, header: Header) -> None:
    """Decode a bitstream, and compare its symbols with those that were coded."""
    if item.ok:
        assert item.symbols is not None
        with item.stage("entropy_decode_seconds"):
            item.row["verified"] = False
            item.decoded = decode_again(codec, item.bitstream, header=header, symbols=item.symbols)
            item.row["verified"] = True
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
