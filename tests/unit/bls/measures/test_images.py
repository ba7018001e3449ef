import csv
import math
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from skimage import data, metrics

from bls.measures import images as quality
from bls.training import distortion

REFERENCE_RD = Path(__file__).parents[4] / "benchmarks" / "reference" / "kodak.csv"

Curve = tuple[list[float], list[float]]


def random_image(*shape: int, seed: int = 0, low: int = 0, high: int = 256) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(low, high, shape, dtype=np.uint8)


def stereo_pair() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    left, right, _ = data.stereo_motorcycle()
    return left, right


def test_bpp_counts_bits_per_pixel() -> None:
    assert quality.bpp(3986, height=376, width=752) == pytest.approx(0.113, abs=5e-4)  # the paper's figure


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
@pytest.mark.parametrize("offset", [0, 1, 10, 155])
def test_uniform_offset_has_mse_of_its_square(shape: tuple[int, ...], offset: int) -> None:
    x = random_image(*shape, high=100)
    x_hat = x + np.uint8(offset)
    assert quality.mse_255(x, x_hat) == quality.mse_255(x_hat, x) == offset**2


def test_mse_of_the_extremes() -> None:
    black, white = np.zeros((3, 3, 3), np.uint8), np.full((3, 3, 3), 255, np.uint8)
    assert quality.mse_255(black, white) == 65025
    assert quality.psnr_db(65025) == 0


def test_psnr() -> None:
    assert quality.psnr_db(0) == math.inf
    assert quality.psnr_db(1) == pytest.approx(48.1308, abs=1e-4)
    assert quality.psnr_db(10) == pytest.approx(quality.psnr_db(1) - 10)
    x, x_hat = stereo_pair()
    expected = metrics.peak_signal_noise_ratio(x, x_hat, data_range=255)
    assert quality.psnr_db(quality.mse_255(x, x_hat)) == pytest.approx(expected)


def test_luma() -> None:
    primaries = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]], np.uint8)
    np.testing.assert_allclose(quality.luma(primaries), [[76.245, 149.685, 29.07, 255]])
    gray = random_image(4, 5)
    np.testing.assert_array_equal(quality.luma(gray), gray)


def test_psnr_luma_weighs_the_channels() -> None:
    x = random_image(6, 8, 3, high=200)
    x_hat = x + np.array([0, 10, 0], np.uint8)
    assert quality.psnr_luma_db(x, x_hat) == pytest.approx(quality.psnr_db(5.87**2))
    assert quality.psnr_luma_db(x[..., 0], x_hat[..., 1]) == pytest.approx(
        quality.psnr_db(quality.mse_255(x[..., 0], x_hat[..., 1]))
    )


def test_ms_ssim_needs_161_pixels() -> None:
    assert quality.ms_ssim(random_image(160, 300), random_image(160, 300)) is None
    assert quality.ms_ssim(random_image(300, 160, 3), random_image(300, 160, 3)) is None
    x = random_image(161, 161)
    assert quality.ms_ssim(x, x) == pytest.approx(1)


def test_ms_ssim_of_a_photograph_follows_the_distortion() -> None:
    x, x_hat = stereo_pair()
    similarity = quality.ms_ssim(x, x_hat)
    planes, planes_hat = (torch.tensor(image / 255).permute(2, 0, 1)[None] for image in (x, x_hat))
    assert similarity == pytest.approx(1 - distortion.ms_ssim(planes, planes_hat).item(), abs=1e-5)


def test_ms_ssim_of_a_mean_shift_is_its_luminance_term() -> None:
    # A constant added to a constant leaves contrast and structure alone: what remains is the luminance of the coarsest
    # of five scales, (2 a b + C1) / (a^2 + b^2 + C1), to the power of its weight .1333 (Wang et al., 2003).
    x, x_hat = np.full((192, 192), 100, np.uint8), np.full((192, 192), 150, np.uint8)
    c1 = (0.01 * 255) ** 2
    luminance = (2 * 100 * 150 + c1) / (100**2 + 150**2 + c1)
    assert quality.ms_ssim(x, x_hat) == pytest.approx(luminance**0.1333, abs=1e-4)


def test_nlpd_of_two_constants_by_hand() -> None:
    # A pixel has no neighbours and no detail: of the six levels only the last differs, by the difference over sigma.
    x, x_hat = np.array([[51]], np.uint8), np.array([[102]], np.uint8)
    assert quality.nlpd(x, x_hat) == pytest.approx(0.2 / 0.2782 / 6)


def test_nlpd_of_rgb_is_that_of_its_luma() -> None:
    x, x_hat = random_image(40, 50), random_image(40, 50, seed=1)
    assert quality.nlpd(np.dstack([x] * 3), np.dstack([x_hat] * 3)) == pytest.approx(quality.nlpd(x, x_hat))
    assert quality.nlpd(x, x) == 0


@pytest.mark.parametrize(
    "measure", [quality.mse_255, quality.psnr_luma_db, quality.ms_ssim, quality.nlpd], ids=lambda f: f.__name__
)
def test_shapes_must_be_equal(measure: object) -> None:
    assert callable(measure)
    with pytest.raises(ValueError, match=r"images have shapes \(8, 9\) and \(9, 8\), expected equal ones"):
        measure(random_image(8, 9), random_image(9, 8))


RATES, QUALITIES = [0.1, 0.2, 0.4, 0.8], [26.0, 29.0, 32.0, 34.5]


@pytest.mark.parametrize(("factor", "percent"), [(1, 0), (0.5, -50), (2, 100), (0.9, -10)])
def test_bd_rate_of_a_scaled_rate(factor: float, percent: float) -> None:
    scaled = [factor * rate for rate in RATES]
    assert quality.bd_rate((RATES, QUALITIES), (scaled, QUALITIES)) == pytest.approx(percent, abs=1e-9)


def test_bd_rate_takes_points_in_any_order_and_number() -> None:
    scaled = [0.5 * rate for rate in RATES]
    test = (scaled[::-1], QUALITIES[::-1])
    assert quality.bd_rate((RATES, QUALITIES), test) == pytest.approx(-50)
    # Three decibels per doubling of the rate: straight lines, which any choice of points describes.
    reference = ([1.0, 2.0, 4.0, 8.0, 16.0], [30.0, 33.0, 36.0, 39.0, 42.0])
    assert quality.bd_rate(reference, ([2.0, 8.0, 64.0], [36.0, 42.0, 51.0])) == pytest.approx(-50)


@pytest.mark.parametrize(
    ("test", "message"),
    [
        (([1.0], [30.0]), "test curve has rates"),
        (([1.0, 2.0, 3.0], [30.0, 29.0, 31.0]), "drop the points that do not"),
        (([1.0, 1.0, 3.0], [30.0, 31.0, 32.0]), "drop the points that do not"),
        (([1.0, 2.0], [40.0, 41.0]), "reaches qualities 26 to 34.5, test 40 to 41, expected some in common"),
    ],
)
def test_bd_rate_names_curves_it_cannot_compare(test: Curve, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        quality.bd_rate((RATES, QUALITIES), test)


def published_curves() -> dict[str, Curve]:
    curves: dict[str, Curve] = defaultdict(lambda: ([], []))
    with REFERENCE_RD.open() as file:
        for row in csv.DictReader(file):
            rates, qualities = curves[row["codec"]]
            rates.append(float(row["bpp"]))
            qualities.append(float(row["psnr_rgb_db"]))
    return curves


def piecewise_linear_bd_rate(reference: Curve, test: Curve) -> float:
    low = max(min(reference[1]), min(test[1]))
    high = min(max(reference[1]), max(test[1]))
    q = np.linspace(low, high, 100_001)
    log_rates = [np.interp(q, np.sort(qualities), np.log(np.sort(rates))) for rates, qualities in (reference, test)]
    return float(100 * np.expm1(np.mean(log_rates[1] - log_rates[0])))


@pytest.mark.parametrize(
    "codec", ["jpeg2000-openjpeg", "webp", "balle2017-retrained-mse", "bmshj2018-hyperprior-mse", "bpg-444", "av1"]
)
def test_bd_rate_of_published_curves_is_that_of_straight_lines_between_their_points(codec: str) -> None:
    curves = published_curves()
    expected = piecewise_linear_bd_rate(curves["jpeg-420"], curves[codec])
    assert quality.bd_rate(curves["jpeg-420"], curves[codec]) == pytest.approx(expected, abs=0.5)
