"""What the report says while it works; tests/integration/test_report.py looks at its page."""

from pathlib import Path
from typing import cast

import numpy as np
import pytest

from jobs import report
from jobs.report import Report
from pipeline.images import ImageError
from pipeline.report.originals import Originals
from pipeline.status import Status


class FakeOriginals:
    def read(self, key: str) -> np.ndarray:
        if key == "gone.png":
            raise ImageError(Status.UNREADABLE, "gone")
        return np.zeros((20, 30), np.uint8)


def test_each_image_that_other_codecs_code_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(report, "compare", lambda *_, **__: [])
    monkeypatch.setattr(report, "missing", lambda codec: "no JPEG XL here" if codec == "jpeg-xl" else "")
    row = {"height": 20, "width": 30, "num_bytes": 9, "psnr_db": 30.0, "ms_ssim": None, "source_format": "JPEG"}
    rows = [{**row, "key": key} for key in ("a.jpg", "gone.png")]
    config = Report(input=str(tmp_path), output="report.html")
    comparison = report._comparison(rows, cast(Originals, FakeOriginals()), config)
    assert (comparison.num_images, comparison.num_jpeg, comparison.num_unreadable) == (1, 1, 1)
    told = capsys.readouterr().err.splitlines()
    assert told == [
        "left out of the comparison: no JPEG XL here",
        "coding 2 images with JPEG, JPEG 2000, WebP, AVIF (tune=psnr), AVIF (tune=iq) at equal quality",
        "image 1 of 2: a.jpg, 0.0 megapixels",
        "image 2 of 2: gone.png, 0.0 megapixels",
    ]
