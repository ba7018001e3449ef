"""The photographs beside Kodak."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.photographs import LICENCES, Photographs, main


def test_photographs_are_laid_out_with_their_licences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(Photographs(tmp_path / "new" / "photographs"))
    files = sorted((tmp_path / "new" / "photographs").iterdir())
    assert [file.name for file in files] == sorted(LICENCES)
    assert capsys.readouterr().out.splitlines() == [f"{name}: {licence}" for name, licence in LICENCES.items()]
    for file in files:
        image = Image.open(io.BytesIO(file.read_bytes()))
        assert image.format == "PNG" and image.mode in ("L", "RGB")
        assert min(image.size) >= 161, "an MS-SSIM"
        assert np.asarray(image).std() > 20
