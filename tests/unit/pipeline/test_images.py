import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from pipeline.images import ImageError, SourceImage, decode, encode
from tests.hostile import eps, jpeg_that_claims

LIMIT = 10_000

# How a camera stores an upright picture with each orientation tag: the inverse of what the tag asks of a viewer.
STORED_FOR = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def photo(height: int = 20, width: int = 30, channels: int = 3) -> np.ndarray:
    """Return smooth random pixels; JPEG keeps them nearly."""
    rng = np.random.default_rng(0)
    shape = (height // 10 + 1, width // 10 + 1, channels)
    coarse = rng.integers(0, 255, shape, dtype=np.uint8).repeat(10, 0).repeat(10, 1)
    return np.ascontiguousarray(coarse[:height, :width] if channels > 1 else coarse[:height, :width, 0])


def file_of(image: Image.Image, image_format: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def exif_with(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "Maker"
    exif.get_ifd(0x8769)[0x927C] = b"maker note whose offsets must stay"
    return exif.tobytes()


def png_of_16_bits(pixels: np.ndarray) -> bytes:
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_rgb_and_gray_come_as_they_are() -> None:
    for pixels, mode in ((photo(), "RGB"), (photo(channels=1), "L")):
        image = decode(file_of(Image.fromarray(pixels)), max_pixels=LIMIT)
        assert np.array_equal(image.pixels, pixels)
        assert image == SourceImage(image.pixels, mode, "PNG", None, None, None)
        assert image.pixels.flags.writeable


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_is_applied_and_reset(orientation: int, image_format: str) -> None:
    """What is decoded is what a viewer shows, and stays so when the EXIF is put back."""
    upright = photo()
    stored = Image.fromarray(upright)
    if orientation > 1:
        stored = stored.transpose(STORED_FOR[orientation])
    options = {"quality": 100, "subsampling": 0} if image_format == "JPEG" else {}
    options |= {"lossless": True} if image_format == "WEBP" else {}
    image = decode(file_of(stored, image_format, exif=exif_with(orientation), **options), max_pixels=LIMIT)
    assert image.pixels.shape == upright.shape
    assert np.abs(image.pixels.astype(int) - upright).max() <= (40 if image_format == "JPEG" else 0)
    assert image.exif is not None
    restored = Image.open(io.BytesIO(encode(image.pixels, image_format="png", exif=image.exif)))
    assert restored.getexif().get(0x0112, 1) == 1
    assert restored.getexif()[0x010F] == "Maker"
    assert restored.getexif().get_ifd(0x8769)[0x927C] == b"maker note whose offsets must stay"


def test_damaged_exif_does_no_harm() -> None:
    for exif in (b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = decode(file_of(Image.fromarray(photo()), "JPEG", exif=exif), max_pixels=LIMIT)
        assert image.pixels.shape == (20, 30, 3)
        assert image.exif == exif


def test_icc_profile_travels() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = decode(file_of(Image.fromarray(photo()), icc_profile=profile), max_pixels=LIMIT)
    assert image.icc_profile == profile
    for image_format in ("png", "jpeg", "webp"):
        restored = Image.open(io.BytesIO(encode(image.pixels, image_format=image_format, icc_profile=profile)))
        assert restored.info["icc_profile"] == profile


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_kept_exactly(mode: str) -> None:
    rng = np.random.default_rng(1)
    source = Image.fromarray(photo()).convert(mode)
    source.putalpha(Image.fromarray(rng.integers(0, 256, (20, 30), dtype=np.uint8)))
    image = decode(file_of(source), max_pixels=LIMIT)
    assert (image.mode, image.pixels.ndim) == (mode, 2 if mode == "LA" else 3)
    restored = Image.open(io.BytesIO(encode(image.pixels, image_format="png", alpha_png=image.alpha_png)))
    assert restored.mode == mode
    assert np.array_equal(np.array(restored), np.array(source))  # colour of transparent pixels included
    webp = Image.open(io.BytesIO(encode(image.pixels, image_format="webp", alpha_png=image.alpha_png)))
    assert np.array_equal(np.array(webp), np.array(source.convert("RGBA")))


def test_palette_with_and_without_transparency() -> None:
    palette = Image.fromarray(photo()).quantize(8)
    image = decode(file_of(palette), max_pixels=LIMIT)
    assert (image.mode, image.alpha_png) == ("P", None)
    assert np.array_equal(image.pixels, np.array(palette.convert("RGB")))
    image = decode(file_of(palette, transparency=bytes([0, 128, 255])), max_pixels=LIMIT)
    assert image.alpha_png is not None
    assert set(np.unique(np.array(Image.open(io.BytesIO(image.alpha_png))))) == {0, 128, 255}


def test_black_and_white_is_gray() -> None:
    image = decode(file_of(Image.fromarray(photo(channels=1)).convert("1")), max_pixels=LIMIT)
    assert image.mode == "1"
    assert image.pixels.ndim == 2
    assert set(np.unique(image.pixels)) == {0, 255}


def test_cmyk_becomes_rgb_and_its_profile_is_used_up() -> None:
    source = Image.fromarray(photo()).convert("CMYK")
    plain = decode(file_of(source, "JPEG", quality=100), max_pixels=LIMIT)
    assert (plain.mode, plain.pixels.shape) == ("CMYK", (20, 30, 3))
    unusable = decode(file_of(source, "JPEG", quality=100, icc_profile=b"no profile"), max_pixels=LIMIT)
    assert unusable.icc_profile is None
    assert np.array_equal(unusable.pixels, plain.pixels)


def cmyk_profile() -> bytes:
    """Return a profile of a device whose black ink alone leaves a mark: a table of corners from CMYK to Lab."""
    lab_of_corner = (bytes([0 if corner & 1 else 255, 128, 128]) for corner in range(16))  # black varies fastest
    ramp = bytes(range(256))
    matrix = struct.pack(">9i", *(0x10000 if index % 4 == 0 else 0 for index in range(9)))
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + matrix + 4 * ramp + b"".join(lab_of_corner) + 3 * ramp
    tags = struct.pack(">I4sII", 1, b"A2B0", 128 + 16, len(table))
    kind = struct.pack(">II4s4s4s", 0, 0x02400000, b"prtr", b"CMYK", b"Lab ")
    d50 = struct.pack(">3i", 0xF6D6, 0x10000, 0xD32D)
    header = struct.pack(">I", 128 + len(tags) + len(table)) + kind + bytes(12) + b"acsp" + bytes(28) + d50
    return header.ljust(128, b"\0") + tags + table


def test_a_cmyk_profile_is_used() -> None:
    source = Image.merge("CMYK", [Image.new("L", (16, 16), ink) for ink in (255, 0, 0, 0)])
    plain = decode(file_of(source, "JPEG", quality=100), max_pixels=LIMIT)
    assert np.abs(plain.pixels.astype(int) - [0, 255, 255]).max() <= 4
    image = decode(file_of(source, "JPEG", quality=100, icc_profile=cmyk_profile()), max_pixels=LIMIT)
    assert (image.mode, image.icc_profile) == ("CMYK", None)
    assert image.pixels.min() >= 250  # cyan leaves no mark on this device


@pytest.mark.parametrize("image_format", ["PNG", "JPEG"])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 65_535), (65_535, 1)])
def test_extreme_sizes(image_format: str, height: int, width: int) -> None:
    if image_format == "JPEG":  # libjpeg stops at 65500
        height, width = min(height, 65_500), min(width, 65_500)
    pixels = np.full((height, width, 3), 77, np.uint8)
    image = decode(file_of(Image.fromarray(pixels), image_format), max_pixels=2**17)
    assert image.pixels.shape == (height, width, 3)
    assert np.array_equal(np.array(Image.open(io.BytesIO(encode(image.pixels, image_format="png")))), image.pixels)


def test_a_small_file_that_claims_a_huge_image_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within the limit of a side as well as beyond it, and with Pillow's own limit as well as without."""
    png = bytearray(file_of(Image.new("RGB", (4, 4))))
    gif = bytearray(file_of(Image.new("P", (4, 4)), "GIF"))
    bmp = bytearray(file_of(Image.new("RGB", (4, 4)), "BMP"))
    png[16:24] = struct.pack(">II", 60_000, 60_000)
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
    gif[6:10] = struct.pack("<HH", 65_535, 65_535)
    bmp[18:26] = struct.pack("<II", 2**30, 2**30)

    def load(self: Image.Image) -> None:
        raise AssertionError("pixels were decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    for limit in (None, 2**20):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        for data in (png, gif, bmp):
            with pytest.raises(ImageError) as caught:
                decode(bytes(data), max_pixels=2**27)
            assert caught.value.status == "too_large"


def refused() -> Iterator[tuple[str, bytes, str]]:
    pixels = photo(100, 200)
    jpeg, png = file_of(Image.fromarray(pixels), "JPEG"), file_of(Image.fromarray(pixels))
    frames = [Image.fromarray(pixels), Image.fromarray(255 - pixels)]
    deep_gray = Image.fromarray(np.full((4, 4), 999, dtype=np.uint16))
    yield "empty", b"", "no bytes"
    yield "not_an_image", b"a text file named .jpg", "is not an image of a format that is read: JPEG, PNG"
    yield "not_an_image", b"\0\0\0\x18ftypheic" + bytes(40), "HEIC"
    yield "truncated", jpeg[: len(jpeg) // 2], "truncated"
    yield "truncated", png[: len(png) // 2], "truncated"
    yield "corrupt", png[:60] + bytes(40) + png[100:], "damaged"
    yield "too_large", file_of(Image.new("L", (LIMIT + 1, 2))), "over the limit of 20000"
    yield "too_large", file_of(Image.new("1", (70_000, 1)), "TIFF"), "65535 a side"
    for image_format in ("GIF", "WEBP", "PNG", "TIFF"):
        yield "unsupported", file_of(frames[0], image_format, save_all=True, append_images=frames[1:]), "frames"
    yield "unsupported", file_of(deep_gray), "mode I;16"
    yield "unsupported", png_of_16_bits(pixels.astype(np.uint16) * 257), "8 bits"
    yield "unsupported", b"P6 2 2 65535\n" + bytes(24), "8 bits"
    yield "unsupported", file_of(Image.new("F", (4, 4)), "TIFF"), "mode F"
    yield "unsupported", file_of(deep_gray, "JPEG2000"), "mode I;16"


def test_a_small_jpeg_that_claims_many_pixels_is_truncated() -> None:
    with pytest.raises(ImageError, match="cannot hold the pixels") as caught:
        decode(jpeg_that_claims(8000, 8000), max_pixels=2**27)
    assert caught.value.status == "truncated"
    assert (caught.value.facts["width"], caught.value.facts["height"]) == (8000, 8000)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_the_smallest_jpeg_of_a_size_is_whole(mode: str, progressive: bool) -> None:
    data = file_of(Image.new(mode, (2048, 1024)), "JPEG", optimize=True, progressive=progressive)
    assert decode(data, max_pixels=2**21).pixels.shape[:2] == (1024, 2048)


SECRET = b"hunter2"


@pytest.mark.parametrize(
    "data",
    [
        SECRET + b" in some file",
        b"P6 " + SECRET + b" 4 255\n",
        b"P6 " + SECRET * 3 + b" 4 255\n",
        b"P1 2 2 " + SECRET,
        b"P3 2 2 255 " + SECRET * 20 + b" ",
        b"\x89PNG\r\n\x1a\n" + SECRET * 5,
        b"\x89PNG\r\n\x1a\n\0\0\0\x0d" + SECRET * 5,
        b"BM" + SECRET * 10,
        b"II*\0\x08\0\0\0\x05\0" + SECRET * 20,
        b"GIF89a" + SECRET * 3,
        b"qoif" + SECRET * 3,
        b"\xff\xd8\xff\xe1\0\x20" + SECRET * 10,
        b"RIFF\xff\0\0\0WEBP" + SECRET * 4,
        b"\0\0\0\x18ftypavif" + SECRET * 4,
    ],
)
def test_reasons_quote_nothing_of_a_file(data: bytes) -> None:
    with pytest.raises(ImageError) as caught:
        decode(data, max_pixels=2**32)
    assert "hunt" not in str(caught.value)


def test_an_eps_is_never_given_to_ghostscript(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: object, **__: object) -> None:
        raise AssertionError("a program was run")

    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", run)
    Image.open(io.BytesIO(eps()))  # Pillow by itself takes it
    with pytest.raises(ImageError) as caught:
        decode(eps(), max_pixels=LIMIT)
    assert caught.value.status == "not_an_image"


def test_an_icc_profile_that_png_readers_refuse_is_named() -> None:
    profile = np.random.default_rng(0).bytes(2**20 + 1)
    with pytest.raises(ImageError, match="ICC profile has 1048577 bytes, PNG readers take 1048576: use webp") as caught:
        encode(photo(), image_format="png", icc_profile=profile)
    assert caught.value.status == "unsupported"
    for image_format in ("webp", "jpeg"):
        restored = Image.open(io.BytesIO(encode(photo(), image_format=image_format, icc_profile=profile)))
        assert restored.info["icc_profile"] == profile
    with pytest.raises(ImageError, match="ICC profile or text of more than 1 MiB") as caught:
        decode(file_of(Image.fromarray(photo()), icc_profile=profile), max_pixels=LIMIT)
    assert caught.value.status == "unsupported"
    restored = Image.open(io.BytesIO(encode(photo(), image_format="png", icc_profile=profile[: 2**20])))
    assert restored.info["icc_profile"] == profile[: 2**20]


def test_an_alpha_plane_of_another_size_is_not_decoded() -> None:
    with pytest.raises(ImageError, match="the alpha plane has"):
        encode(photo(), image_format="png", alpha_png=file_of(Image.new("L", (3000, 3000))))


@pytest.mark.parametrize(("status", "data", "reason"), list(refused()))
def test_refused(status: str, data: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason) as caught:
        decode(data, max_pixels=2 * LIMIT)
    assert caught.value.status == status


def test_what_is_known_of_a_refused_image_is_told() -> None:
    with pytest.raises(ImageError) as caught:
        decode(file_of(Image.fromarray(photo())), max_pixels=599)
    assert caught.value.facts == {"width": 30, "height": 20, "mode": "RGB", "source_format": "PNG"}


def test_a_bomb_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    data = file_of(Image.new("L", (1000, 1000)))

    def load(self: Image.Image) -> None:
        raise AssertionError("pixels were decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    with pytest.raises(ImageError, match="over the limit of 999999"):
        decode(data, max_pixels=999_999)


@pytest.mark.parametrize("image_format", ["AVIF", "JPEG2000", "WEBP", "BMP", "TGA", "PPM"])
def test_other_formats(image_format: str) -> None:
    assert decode(file_of(Image.fromarray(photo()), image_format), max_pixels=LIMIT).pixels.shape == (20, 30, 3)


def test_an_mpo_is_its_first_frame() -> None:
    first, second = Image.fromarray(photo()), Image.fromarray(255 - photo())
    image = decode(file_of(first, "MPO", save_all=True, append_images=[second], quality=95), max_pixels=LIMIT)
    assert image.source_format == "MPO"
    assert np.abs(image.pixels.astype(int) - photo()).mean() < 10


def test_jpeg_refuses_alpha_and_too_much_exif() -> None:
    alpha_png = file_of(Image.new("L", (30, 20)))
    with pytest.raises(ImageError, match="JPEG cannot hold: use png"):
        encode(photo(), image_format="jpeg", alpha_png=alpha_png)
    with pytest.raises(ImageError, match="use png"):
        encode(photo(), image_format="jpeg", exif=b"Exif\0\0" + bytes(70_000))


def test_many_threads() -> None:
    data = file_of(Image.fromarray(photo()), "JPEG", exif=exif_with(6))
    with ThreadPoolExecutor(8) as executor:
        images = list(executor.map(lambda _: decode(data, max_pixels=LIMIT).pixels, range(200)))
    assert all(np.array_equal(image, images[0]) for image in images)
