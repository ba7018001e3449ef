import zlib

import pytest

from bls.bitstream import BitstreamError, Coder, Header, pack
from pipeline.work.kept import KeptFile, claimed_pixels, stored
from tests.hostile import image_file

NOTHING = {"bitstream": None, "original": None, "original_extension": None, "original_crc32": None}


@pytest.mark.parametrize(
    ("key", "source_format", "extension"),
    [
        ("a/b.JPG", "JPEG", ".JPG"),
        ("a.b/no_extension", "MPO", ".jpg"),
        ("name.php", "GIF", ".gif"),
        ("row 7", "JPEG2000", ".jp2"),
        ("x.png", "JPEG", ".png"),
    ],
)
def test_an_extension_is_that_of_the_key_if_it_is_one_of_images(key: str, source_format: str, extension: str) -> None:
    assert KeptFile.of(b"", key=key, source_format=source_format).extension == extension


def test_a_row_holds_a_file_or_a_bitstream() -> None:
    kept = KeptFile.of(image_file(), key="a.png", source_format="PNG")
    assert stored({**NOTHING, **kept.columns()}) == kept
    assert (len(kept), kept.crc32) == (len(image_file()), zlib.crc32(image_file()))
    assert stored({**NOTHING, "bitstream": b"coded"}) == b"coded"


def test_damage_and_size_are_an_error() -> None:
    kept = KeptFile.of(image_file(), key="a.png", source_format="PNG")
    height, width = kept.decode(max_pixels=10**6).pixels.shape[:2]
    with pytest.raises(BitstreamError, match=f"cannot be decoded: {width} x {height} pixels, over the limit of 1"):
        kept.decode(max_pixels=1)
    with pytest.raises(BitstreamError, match="checksum of the kept original does not match"):
        KeptFile(kept.data[:-1], ".png", kept.crc32).decode(max_pixels=10**6)
    assert claimed_pixels(kept) == height * width
    assert claimed_pixels(KeptFile(b"text", ".png", 0)) == 0


def test_pixels_of_a_bitstream_are_those_of_its_header() -> None:
    header = Header(height=3, width=5, gray=False, quality_index=4 * 256, coder=Coder.STATIC)
    assert claimed_pixels(pack(header, b"", fingerprint=bytes(8))) == 15
    assert claimed_pixels(b"short") == 0
