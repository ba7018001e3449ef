"""Single files: `python -m bls encode IN OUT.bls --quality Q`, `decode IN.bls OUT.png`, `info IN.bls`."""

import sys
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from PIL import Image, ImageOps

from bls import bitstream, use_huge_pages
from bls.bitstream import MAX_PIXELS, BitstreamError
from bls.codec import Codec
from bls.entropy.coders import CODERS
from bls.files import replace_file, write_file
from bls.image_files import open_image
from bls.ladder import quality_of, quality_text
from bls.measures import images as measures
from bls.targets import Kind, Target, compress_to_target

Input = Annotated[Path, tyro.conf.Positional]


def encode(
    image: Input,
    output: Annotated[Path, tyro.conf.Positional],
    /,
    quality: float | None = None,
    target_psnr_db: float | None = None,
    target_ms_ssim: float | None = None,
    target_num_bytes: int | None = None,
    target_bpp: float | None = None,
    coder: str = CODERS[0],
    bundle: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Compress an image file to a .bls file.

    Args:
        image: An image of a format in `bls.image_files`; transparency is refused, not dropped.
        output: The .bls file.
        quality: From 1 (smallest files) to 8 (best images), any number between; 4 where no target is given.
        target_psnr_db: Search for the lowest quality that reaches this PSNR, in dB.
        target_ms_ssim: Search for the lowest quality that reaches this MS-SSIM.
        target_num_bytes: Search for the highest quality whose bitstream has no more bytes than this.
        target_bpp: Search for the highest quality whose bitstream has no more bits per pixel than this.
        coder: Entropy coder: `mixed` (smallest), `adaptive` (faster) or `static`.
        bundle: Folder of fitted models; by default the one that comes with the package.
        overwrite: Replace a file that is there.
    """
    _check_target(output, source=image, overwrite=overwrite)
    asked: list[tuple[Kind, float | None]] = [
        ("psnr_db", target_psnr_db),
        ("ms_ssim", target_ms_ssim),
        ("num_bytes", target_num_bytes),
        ("bpp", target_bpp),
    ]
    targets = [Target(kind, value) for kind, value in asked if value is not None]
    if len(targets) + (quality is not None) > 1:
        raise ValueError("several of --quality and the targets are given: give one")
    codec = Codec.load(bundle)
    pixels = _read_image(image)
    if targets:
        found = compress_to_target(
            codec, pixels, targets[0], coder=coder, more_num_bytes=bitstream.FILE_PREFIX_NUM_BYTES
        )
        stream, quality = found.bitstream, found.quality
        if not found.is_met:
            print(f"{output}: no quality meets the target, {quality_text(quality)} comes nearest", file=sys.stderr)
    else:
        quality = 4.0 if quality is None else quality
        stream = codec.compress(pixels, quality=quality, coder=coder)
    data = bitstream.pack_file(stream, fingerprint=codec.model_fingerprint(quality))
    write_file(output, data)
    height, width = pixels.shape[:2]
    rate = f"{len(data)} bytes, {_bpp(data, height, width):.4f} bpp"
    print(f"{output}: {width}x{height}, quality {quality_text(quality)}, {rate}")


def decode(
    file: Input,
    output: Annotated[Path, tyro.conf.Positional],
    /,
    bundle: Path | None = None,
    max_pixels: int = MAX_PIXELS,
    overwrite: bool = False,
) -> None:
    """Decompress a .bls file to an image file.

    Args:
        file: The .bls file.
        output: Image file; its extension chooses the format.
        bundle: Folder of fitted models; by default the one that comes with the package.
        max_pixels: Refuse a file that claims more: a few hostile bytes may ask for gigabytes of memory.
        overwrite: Replace a file that is there.
    """
    _check_target(output, source=file, overwrite=overwrite)
    fingerprint, data = bitstream.unpack_file(file.read_bytes())
    header = bitstream.parse_header(data)
    if header.width * header.height > max_pixels:
        raise ValueError(
            f"{file} claims {header.width}x{header.height} pixels, --max-pixels is {max_pixels}: "
            "give a larger --max-pixels if you trust the file"
        )
    codec = Codec.load(bundle, max_pixels=max_pixels)
    expected = codec.model_fingerprint(quality_of(header.quality_index))
    bitstream.check_fingerprint(fingerprint, model=expected)
    image = Image.fromarray(codec.decompress(data))
    extension = output.suffix.lower()
    if extension not in Image.registered_extensions():
        raise ValueError(f"{output} has extension {extension or 'none'}, which Pillow cannot write: use .png")
    replace_file(output, image.save)
    print(f"{output}: {image.width}x{image.height}, {'grayscale' if image.mode == 'L' else 'RGB'}")


def info(file: Input, /) -> None:
    """Print what a .bls file says of itself; needs no model.

    Args:
        file: The .bls file.
    """
    data = file.read_bytes()
    fingerprint, stream = bitstream.unpack_file(data)
    header = bitstream.parse_header(stream)
    print(f"size         {header.width}x{header.height} {'grayscale' if header.gray else 'RGB'}")
    print(f"quality      {quality_text(quality_of(header.quality_index))}")
    print(f"coder        {header.coder.name.lower()}")
    print(f"model        {fingerprint.hex()}")
    print(f"bytes        {len(data)} ({_bpp(data, header.height, header.width):.4f} bpp), checksum intact")


def _bpp(data: bytes, height: int, width: int) -> float:
    return measures.bpp(len(data), height=height, width=width)


def _check_target(output: Path, *, source: Path, overwrite: bool) -> None:
    """Refuse to replace a file unasked, and the input in any case."""
    if not output.exists():
        return
    if source.exists() and output.samefile(source):
        raise ValueError(f"{output} is the input itself, which is not replaced: give another output")
    if not overwrite:
        raise ValueError(f"{output} is there already: give another output, or --overwrite to replace it")


def _read_image(path: Path) -> np.ndarray:
    # A picture too large to be plausible is an error here, not a warning.
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        image = ImageOps.exif_transpose(open_image(path))
    if image.has_transparency_data:
        raise ValueError(f"{path} has transparency, which a .bls file cannot hold: flatten it first")
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L"))
    if image.mode in ("P", "RGB", "CMYK", "YCbCr"):
        return np.asarray(image.convert("RGB"))
    raise ValueError(f"{path} has mode {image.mode}, expected 8-bit grayscale or colour: convert it first")


COMMANDS: dict[str, Callable[..., None]] = {"encode": encode, "decode": decode, "info": info}


def main() -> None:
    """Run the command that the arguments name; exit code 1 on failure, 2 on wrong usage."""
    use_huge_pages()
    if "--version" in sys.argv[1:]:
        print(f"bls-codec {version('bls-codec')}")
        return
    try:
        tyro.extras.subcommand_cli_from_dict(COMMANDS, prog="python -m bls")
    except (BitstreamError, ValueError, OSError, Warning, Image.DecompressionBombError) as error:
        sys.exit(f"bls: {error}")


if __name__ == "__main__":
    main()
