import io
import re
from pathlib import Path

import pytest
from PIL import Image, UnidentifiedImageError

from bls.image_files import FORMATS, open_image

ROOT = Path(__file__).parents[3]
RUN_PROGRAMS = {"EPS"}


def file_of(image_format: str) -> io.BytesIO:
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, image_format)
    return io.BytesIO(file.getvalue())


@pytest.mark.parametrize("image_format", [name for name in FORMATS if name not in ("HEIF", "JXL")])
def test_formats_of_photographs_are_opened(image_format: str) -> None:
    opened = open_image(file_of(image_format))
    assert opened.size == (16, 16)
    assert opened.format in (image_format, "BMP")  # a DIB is a BMP behind its first header


@pytest.mark.parametrize("image_format", ["EPS", "PCX", "SGI", "ICO", "PDF"])
def test_other_formats_are_not(image_format: str) -> None:
    with pytest.raises(UnidentifiedImageError):
        open_image(file_of(image_format))
    assert RUN_PROGRAMS.isdisjoint(FORMATS)


def test_no_code_of_the_packages_opens_images_of_any_format() -> None:
    opened = {
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for package in ("bls", "pipeline", "jobs")
        for path in (ROOT / package).rglob("*.py")
        for line in path.read_text().splitlines()
        if re.search(r"Image\.open\(", line) and "formats=" not in line
    }
    assert opened == set()
