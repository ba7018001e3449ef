"""SSIMULACRA2 by its package, and without it."""

import importlib.util

import numpy as np
import pytest
from skimage import data

from bls.pixels import Pixels
from pipeline import baselines
from pipeline.evaluate.ssimulacra2 import package_version, ssimulacra2

needs_package = pytest.mark.skipif(
    importlib.util.find_spec("ssimulacra2") is None, reason="needs the package: pip install 'bls-codec[compare]'"
)


@pytest.fixture(scope="module")
def photograph() -> Pixels:
    x: Pixels = data.astronaut()[:200, 150:390]
    return x


@needs_package
def test_equal_images_have_100_and_worse_ones_less(photograph: Pixels) -> None:
    coded = [baselines.decode(baselines.encode(photograph, "jpeg-420", q), gray=False) for q in (95, 60, 20)]
    found = [ssimulacra2(photograph, x_hat) for x_hat in (photograph, *coded)]
    scores = [score for score in found if score is not None]
    assert scores[0] == pytest.approx(100) and len(scores) == 4
    assert scores == sorted(scores, reverse=True) and 20 < scores[-1] < 70


@needs_package
def test_gray_is_measured_as_gray_rgb(photograph: Pixels) -> None:
    gray = photograph[..., 1].copy()
    worse = baselines.decode(baselines.encode(gray, "jpeg-420", 50), gray=True)
    rgb = [np.repeat(each[..., None], 3, axis=2) for each in (gray, worse)]
    assert ssimulacra2(gray, worse) == ssimulacra2(*rgb)


@needs_package
@pytest.mark.parametrize(("shift", "libjxl"), [(5, 89.732), (20, 59.779)])
def test_scores_are_near_those_of_libjxl(shift: int, libjxl: float) -> None:
    """Scores of libjxl's tool for a gray of 128 and a lighter one, as github.com/imazen/ssimulacra2 publishes them."""
    images = [np.full((256, 256, 3), value, np.uint8) for value in (128, 128 + shift)]
    assert ssimulacra2(*images) == pytest.approx(libjxl, abs=4)


def test_tiny_images_have_none() -> None:
    assert ssimulacra2(np.zeros((7, 50), np.uint8), np.zeros((7, 50), np.uint8)) is None


def test_without_the_package_there_is_none(photograph: Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert package_version() is None and ssimulacra2(photograph, photograph) is None
