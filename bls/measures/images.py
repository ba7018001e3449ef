"""Measures of a compressed image: rate, error, similarity, and the distance between two rate-distortion curves.

Images are uint8 arrays, (h, w) grayscale or (h, w, 3) RGB. Letters in shapes: h and w rows and columns.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Shaped, UInt8
from numpy.typing import NDArray

from bls.measures.luma import LUMA_WEIGHTS
from bls.measures.ms_ssim import MS_SSIM_MIN_SIDE, ms_ssim_255
from bls.measures.nlp import nlp

_STRIP_NUM_SAMPLES = 2**18  # of what is computed at once: large images need no memory of their size, small ones no more

Image = UInt8[np.ndarray, "h w"] | UInt8[np.ndarray, "h w 3"]


def bpp(num_bytes: int, *, height: int, width: int) -> float:
    """Return the rate in bits per pixel."""
    return 8 * num_bytes / (height * width)


def mse_255(x: Image, x_hat: Image) -> float:
    """Return the mean squared error over pixels and channels, on the scale of 0 to 255."""
    _check_shapes(x, x_hat)
    flat, flat_hat = x.reshape(-1), x_hat.reshape(-1)
    total = 0
    for start in range(0, x.size, _STRIP_NUM_SAMPLES):
        strip = slice(start, start + _STRIP_NUM_SAMPLES)
        total += int(np.square(np.subtract(flat[strip], flat_hat[strip], dtype=np.int32)).sum(dtype=np.int64))
    return total / x.size


def psnr_db(mse_255: float) -> float:
    """Return the peak signal-to-noise ratio in decibels; infinite for no error."""
    return 10 * math.log10(255**2 / mse_255) if mse_255 else math.inf


def luma(x: Image) -> Float[np.ndarray, "h w"]:
    """Return the luma (ITU-R BT.601) on the scale of 0 to 255, unrounded; a grayscale image is its own."""
    return x.astype(np.float64) if x.ndim == 2 else x @ np.array(LUMA_WEIGHTS)


def psnr_luma_db(x: Image, x_hat: Image) -> float:
    """Return the peak signal-to-noise ratio of the luma in decibels."""
    _check_shapes(x, x_hat)
    return psnr_db(float(np.mean(np.square(luma(x) - luma(x_hat)))))


def ms_ssim(x: Image, x_hat: Image) -> float | None:
    """Return the multiscale structural similarity, the mean over channels; None where a side has under 161 pixels."""
    _check_shapes(x, x_hat)
    if min(x.shape[:2]) < MS_SSIM_MIN_SIDE:
        return None
    return ms_ssim_255(x, x_hat)


def nlpd(x: Image, x_hat: Image) -> float:
    """Return the normalized Laplacian pyramid distance of the luma (0 for equal images), as `bls.measures.nlp.nlp`."""
    _check_shapes(x, x_hat)
    return float(nlp(_to_tensor(luma(x) / 255), _to_tensor(luma(x_hat) / 255)))


def bd_rate(reference: tuple[Sequence[float], Sequence[float]], test: tuple[Sequence[float], Sequence[float]]) -> float:
    """Return how much more rate `test` needs than `reference` for equal quality, in percent (negative: less).

    Each curve is (rates, qualities), e.g. bpp and PSNR. The mean is taken of the logarithm of the rate, over the
    qualities that both curves reach (Bjøntegaard, VCEG-M33), by Akima interpolation (Herglotz et al., ICIP 2022).

    Raises:
        ValueError: a curve has fewer than two points, its rate or quality does not rise from point to point, or the two
            have no quality in common.
    """
    # A package of the extra `evaluate`. It imports matplotlib, for which only those who compare curves should wait.
    import bjontegaard

    rates, qualities = _rising(reference, "reference")
    test_rates, test_qualities = _rising(test, "test")
    if max(qualities[0], test_qualities[0]) >= min(qualities[-1], test_qualities[-1]):
        raise ValueError(
            f"reference reaches qualities {qualities[0]:.4g} to {qualities[-1]:.4g}, test {test_qualities[0]:.4g} to "
            f"{test_qualities[-1]:.4g}, expected some in common: code both at settings of equal quality"
        )
    return float(
        bjontegaard.bd_rate(
            rates, qualities, test_rates, test_qualities, method="akima", require_matching_points=False, min_overlap=0
        )
    )


def _rising(
    curve: tuple[Sequence[float], Sequence[float]], name: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rates, qualities = (np.asarray(values, dtype=np.float64) for values in curve)
    order = np.argsort(rates)
    rates, qualities = rates[order], qualities[order]
    if rates.size < 2 or np.any(np.diff(rates) <= 0) or np.any(np.diff(qualities) <= 0):
        raise ValueError(
            f"{name} curve has rates {rates} and qualities {qualities}, expected two points or more "
            "whose quality rises with the rate: drop the points that do not"
        )
    return rates, qualities


def _check_shapes(x: Image, x_hat: Image) -> None:
    if x.shape != x_hat.shape:
        raise ValueError(
            f"images have shapes {x.shape} and {x_hat.shape}, expected equal ones: compare an image with its decoding"
        )


def _to_tensor(x: Shaped[np.ndarray, "h w"]) -> Shaped[torch.Tensor, "1 1 h w"]:
    return torch.tensor(x)[None, None]
