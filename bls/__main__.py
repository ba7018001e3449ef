"""Image files: `python -m bls encode IN OUT.bls --quality Q`, `decode IN.bls OUT.png`, `info IN.bls`."""

import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, TypeVar, cast

import numpy as np
import tyro
from PIL import Image, ImageOps

from bls import bitstream, use_huge_pages
from bls.bitstream import MAX_PIXELS, BitstreamError
from bls.codec import Codec
from bls.entropy.coders import CODERS
from bls.files import replace_file, write_file
from bls.image_files import open_image
from bls.ladder import index_of, quality_of, quality_text
from bls.measures import images as measures
from bls.refinement.descent import check_effort
from bls.targets import Kind, Target, compress_to_target
from bls.transforms.thumbnails import Scale

DONE, TARGET_MISSED = 0, 3  # exit codes


class UsageError(ValueError):
    """What is asked for makes no sense, whatever the files hold."""


T = TypeVar("T")
Input = Annotated[Path, tyro.conf.Positional]
Compress = Callable[[np.ndarray], tuple[float, bytes, bool]]
"""Pixels to quality, bitstream, and whether it meets its target."""


def encode(
    files: Annotated[tuple[Path, ...], tyro.conf.Positional],
    /,
    output_dir: Path | None = None,
    quality: float | None = None,
    target_psnr_db: float | None = None,
    target_ms_ssim: float | None = None,
    target_num_bytes: int | None = None,
    target_bpp: float | None = None,
    effort: int = 0,
    coder: str = CODERS[0],
    bundle: Path | None = None,
    preview: bool = False,
    overwrite: bool = False,
) -> int:
    """Compress an image file to a .bls file, or many into a folder, and print rate and PSNR.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done, but at least one image does not meet its target.

    Args:
        files: An image and the .bls file to write; with --output-dir any number of images, of formats in
            `bls.image_files`. Transparency is refused, not dropped.
        output_dir: Folder of the .bls files, which are named like their images.
        quality: From 1 (smallest files) to 8 (best images), any number between; 4 where no target is given.
        target_psnr_db: Search for the lowest quality that reaches this PSNR, in dB.
        target_ms_ssim: Search for the lowest quality that reaches this MS-SSIM.
        target_num_bytes: Search for the highest quality whose bitstream has no more bytes than this.
        target_bpp: Search for the highest quality whose bitstream has no more bits per pixel than this.
        effort: From 0 (fastest) to 3: more time for a better image at its bits. At the same
            --quality PSNR rises, and often the size; with a target of PSNR the file is smaller.
        coder: Entropy coder: `mixed` (smallest), `adaptive` (faster) or `static`.
        bundle: Folder of fitted models; by default the one that comes with the package.
        preview: Write each decoded image beside its .bls file, as `.preview.png`: to see what the quality looks like.
        overwrite: Replace files that are there.
    """
    wanted = _goal(quality, psnr_db=target_psnr_db, ms_ssim=target_ms_ssim, num_bytes=target_num_bytes, bpp=target_bpp)
    check_effort(effort)
    pairs = _pairs(files, output_dir, ".bls")
    for _, output in pairs:
        if output.suffix != ".bls":
            raise ValueError(f"{output} is not a name for a .bls file: for several images give --output-dir")
    outputs = [output for _, output in pairs]
    targets = [*outputs, *map(_preview_of, outputs)] if preview else outputs
    _check_targets(targets, sources=[image for image, _ in pairs], overwrite=overwrite)
    codec = Codec.load(bundle)
    if output_dir is not None:
        output_dir.mkdir(parents=True, exist_ok=True)
    compress = partial(_compress, codec, wanted, coder, effort)
    are_met = _do_all(pairs, partial(_encode, codec, compress=compress, preview=preview), "images were not encoded")
    return DONE if all(are_met) else TARGET_MISSED


def _do_all(pairs: Sequence[tuple[Path, Path]], do: Callable[[Path, Path], T], failed: str) -> list[T]:
    """Do something with each file and the one to write; return what came of it. One bad file stops no other.

    Raises:
        ValueError: at the end, with what is wrong with each bad file.
    """
    results, errors = [], []
    for source, output in pairs:
        try:
            results.append(do(source, output))
        except (ValueError, OSError, Warning, Image.DecompressionBombError) as error:
            text = str(error)
            errors.append(text if text.startswith(str(source)) else f"{source}: {text}")
    if errors:
        several = [f"{len(errors)} of {len(pairs)} {failed}"] if len(pairs) > 1 else []
        raise ValueError("\n".join([*errors, *several]))
    return results


def _goal(quality: float | None, **values: float | None) -> Target | float:
    """Return the target that was given, by its kind, or the quality."""
    given = {kind: value for kind, value in values.items() if value is not None}
    if len(given) + (quality is not None) > 1:
        raise UsageError("several of --quality and the targets are given: give one")
    try:
        for kind, value in given.items():
            return Target(cast(Kind, kind), value)
        wanted = 4.0 if quality is None else quality
        index_of(wanted)
    except ValueError as error:
        raise UsageError(str(error)) from error
    return wanted


def _pairs(files: Sequence[Path], output_dir: Path | None, suffix: str) -> list[tuple[Path, Path]]:
    """Return each file with the one to write."""
    if output_dir is None:
        if len(files) != 2:
            raise ValueError(f"{len(files)} files are given, expected one to read and one to write, or --output-dir")
        return [(files[0], files[1])]
    sources: dict[Path, Path] = {}
    for source in files:
        output = output_dir / f"{source.stem}{suffix}"
        if output in sources:
            raise ValueError(f"{sources[output]} and {source} would both be {output}: give one another folder")
        sources[output] = source
    return [(source, output) for output, source in sources.items()]


def _preview_of(output: Path) -> Path:
    return output.with_suffix(".preview.png")


def _encode(codec: Codec, image: Path, output: Path, *, compress: Compress, preview: bool) -> bool:
    """Encode a file and print what became of it; return whether it meets its target."""
    pixels = _read_image(image)
    quality, stream, is_met = compress(pixels)
    data = bitstream.pack_file(stream, fingerprint=codec.model_fingerprint(quality))
    write_file(output, data)
    height, width = pixels.shape[:2]
    rate = f"{len(data)} bytes, {_bpp(data, height, width):.4f} bpp"
    x_hat = codec.decompress(stream)
    if preview:
        replace_file(_preview_of(output), Image.fromarray(x_hat).save)
    psnr_db = measures.psnr_db(measures.mse_255(pixels, x_hat))
    print(f"{output}: {width}x{height}, quality {quality_text(quality)}, {rate}, PSNR {psnr_db:.2f} dB")
    if not is_met:
        print(f"{output}: no quality meets the target, {quality_text(quality)} comes nearest", file=sys.stderr)
    return is_met


def _compress(
    codec: Codec, wanted: Target | float, coder: str, effort: int, pixels: np.ndarray
) -> tuple[float, bytes, bool]:
    """Do what `Compress` says; a given quality is met."""
    if not isinstance(wanted, Target):
        return wanted, codec.compress(pixels, quality=wanted, coder=coder, effort=effort), True
    prefix = bitstream.FILE_PREFIX_NUM_BYTES
    found = compress_to_target(codec, pixels, wanted, coder=coder, effort=effort, more_num_bytes=prefix)
    return found.quality, found.bitstream, found.is_met


def decode(
    files: Annotated[tuple[Path, ...], tyro.conf.Positional],
    /,
    output_dir: Path | None = None,
    thumbnail: Scale | None = None,
    bundle: Path | None = None,
    max_pixels: int = MAX_PIXELS,
    overwrite: bool = False,
) -> int:
    """Decompress a .bls file to an image file, or many into a folder, as PNG.

    Args:
        files: A .bls file and the image file to write, whose extension chooses the format; with --output-dir any number
            of .bls files.
        output_dir: Folder of the images, which are named like their .bls files.
        thumbnail: Write small pictures instead: 16 for 1/16 of height and width, 8 for 1/8. It is faster.
        bundle: Folder of fitted models; by default the one that comes with the package.
        max_pixels: Refuse a file that claims more: a few hostile bytes may ask for gigabytes of memory.
        overwrite: Replace a file that is there.
    """
    pairs = _pairs(files, output_dir, ".png")
    outputs = [output for _, output in pairs]
    _check_targets(outputs, sources=[file for file, _ in pairs], overwrite=overwrite)
    for output in outputs:
        if output.suffix.lower() not in Image.registered_extensions():
            raise ValueError(f"{output} has extension {output.suffix or 'none'}, which Pillow cannot write: use .png")
    if output_dir is not None:
        output_dir.mkdir(parents=True, exist_ok=True)
    load = cache(lambda: Codec.load(bundle, max_pixels=max_pixels))
    _do_all(pairs, partial(_decode, load=load, scale=thumbnail, max_pixels=max_pixels), "files were not decoded")
    return DONE


def _decode(file: Path, output: Path, *, load: Callable[[], Codec], scale: Scale | None, max_pixels: int) -> None:
    """Decode a file to an image or a thumbnail, and print its size; a codec is loaded for what is within the limit."""
    fingerprint, data = bitstream.unpack_file(file.read_bytes())
    header = bitstream.parse_header(data)
    if header.width * header.height > max_pixels:
        raise ValueError(
            f"{file} claims {header.width}x{header.height} pixels, --max-pixels is {max_pixels}: "
            "give a larger --max-pixels if you trust the file"
        )
    codec = load()
    expected = codec.model_fingerprint(quality_of(header.quality_index))
    bitstream.check_fingerprint(fingerprint, model=expected)
    image = Image.fromarray(codec.decompress(data) if scale is None else codec.thumbnail(data, scale=scale))
    replace_file(output, image.save)
    print(f"{output}: {image.width}x{image.height}, {'grayscale' if image.mode == 'L' else 'RGB'}")


def info(file: Input, /) -> int:
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
    return DONE


def _bpp(data: bytes, height: int, width: int) -> float:
    return measures.bpp(len(data), height=height, width=width)


def _check_targets(outputs: Iterable[Path], *, sources: Iterable[Path], overwrite: bool) -> None:
    """Refuse to replace files unasked, and those that are read in any case."""
    read = {_identity(source) for source in sources if source.exists()}
    for output in outputs:
        if not output.exists():
            continue
        if _identity(output) in read:
            raise ValueError(f"{output} is an input itself, which is not replaced: give another output")
        if not overwrite:
            raise ValueError(f"{output} is there already: give another output, or --overwrite to replace it")


def _identity(path: Path) -> tuple[int, int]:
    """Return what is the same for all names of a file."""
    found = path.stat()
    return found.st_dev, found.st_ino


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


COMMANDS: dict[str, Callable[..., int]] = {"encode": encode, "decode": decode, "info": info}


def main() -> None:
    """Run the command that the arguments name; exit code 1 on failure, 2 on wrong usage, 3 on a missed target."""
    use_huge_pages()
    if "--version" in sys.argv[1:]:
        print(f"bls-codec {version('bls-codec')}")
        return
    try:
        code = tyro.extras.subcommand_cli_from_dict(COMMANDS, prog="python -m bls")
    except UsageError as error:
        print(f"bls: {error}", file=sys.stderr)
        sys.exit(2)
    except (BitstreamError, ValueError, OSError, Warning, Image.DecompressionBombError) as error:
        sys.exit(f"bls: {error}")
    if code != DONE:
        sys.exit(code)


if __name__ == "__main__":
    main()
