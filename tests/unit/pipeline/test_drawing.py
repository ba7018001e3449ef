import io
import math
import subprocess
import sys
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from bls.entropy.coders import CODERS
from pipeline import drawing as plots
from pipeline.evaluate.curve_plots import plot_rate_distortion
from pipeline.evaluate.curves import Curve
from pipeline.evaluate.relaxation_plot import plot_relaxation
from pipeline.train.curve_plot import plot_training_curve

CURVES = [
    Curve("bls-adaptive", (0.2, 0.5, 1.2), (28.0, 31.4, 35.3)),
    Curve("jpeg-420", (0.2, 0.5, 3.0), (24.0, 29.0, 38.0)),
    Curve("jpeg-420", (0.25, 0.6), (24.5, 30.0), is_published=True),
    Curve("webp", (0.2,), (27.0,)),
]


def rate_distortion(image_format: str) -> bytes:
    return plot_rate_distortion(
        CURVES, ours="bls-adaptive", quality_label="PSNR in dB", title="kodak", image_format=image_format
    )


def relaxation(image_format: str) -> bytes:
    rng = np.random.default_rng(0)
    names = ("noisy_mse_255", "rounded_mse_255", "noisy_bpp", "rounded_bpp", *(f"{coder}_bpp" for coder in CODERS))
    rows = [{"quality": quality, **{name: rng.uniform(1, 2) for name in names}} for quality in (2, 4) for _ in range(5)]
    return plot_relaxation(pa.Table.from_pylist(rows), coders=CODERS, image_format=image_format)


def training_table() -> pa.Table:
    rows: list[dict[str, Any]] = []
    for quality in (2, 4):
        for step in range(1, 200, 10):
            loss = quality + math.exp(-step / 50)
            rows.append(dict(qualities=str(quality), step=step, loss=loss, estimated_bpp=loss / 3, psnr_db=30 - loss))
    rows.append(dict(qualities="6", step=1, loss=3.0, estimated_bpp=1.0, psnr_db=30.0))  # has only begun
    return pa.Table.from_pylist(rows)


def training_curve(image_format: str) -> bytes:
    return plot_training_curve(training_table(), image_format=image_format)


PICTURES = [(rate_distortion, (1275, 825)), (relaxation, (2025, 720)), (training_curve, (1200, 1350))]


@pytest.mark.parametrize(("draw", "size"), PICTURES, ids=["rate_distortion", "relaxation", "training_curve"])
def test_pictures_are_png_of_the_right_size_with_something_on_white(draw: Any, size: tuple[int, int]) -> None:
    image = Image.open(io.BytesIO(draw("png")))
    assert (image.format, image.size) == ("PNG", size)
    pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    assert (pixels[[0, -1]] == 255).all()
    coloured = np.ptp(pixels.astype(int), axis=1) > 60
    assert 0.0005 < coloured.mean() < 0.2


@pytest.mark.parametrize(("draw", "size"), PICTURES, ids=["rate_distortion", "relaxation", "training_curve"])
def test_pictures_are_also_svg_and_the_same_each_time(draw: Any, size: tuple[int, int]) -> None:
    svg = draw("svg")
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert svg == draw("svg")


def test_every_curve_is_named() -> None:
    text = rate_distortion("svg").decode()
    for name in ("bls-adaptive", "jpeg-420", "jpeg-420 (published)", "webp", "PSNR in dB", "bits per pixel", "kodak"):
        assert f"<!-- {name} -->" in text


def test_efforts_of_ours_are_curves_of_one_colour() -> None:
    efforts = [Curve("bls", (0.2, 1.0), (28.0, 35.0 + effort), effort=effort) for effort in (0, 3)]
    svg = plot_rate_distortion(efforts, ours="bls", quality_label="PSNR", title="kodak", image_format="svg").decode()
    assert "<!-- bls, effort 0 -->" in svg and "<!-- bls, effort 3 -->" in svg


def test_names_are_moved_apart_and_no_further() -> None:
    moved = plots._spread([0.5, 0.51, 0.1, 0.505], gap=0.1)
    assert moved[2] == 0.1
    assert [moved[i] for i in (0, 3, 1)] == pytest.approx([0.405, 0.505, 0.605], abs=1e-3)


def test_matplotlib_waits_until_something_is_drawn() -> None:
    program = "import sys, pipeline.drawing, pipeline.work.codec, jobs.evaluate; sys.exit('matplotlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
