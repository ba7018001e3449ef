"""SSIMULACRA2, a measure of how alike two pictures look: 100 for equal ones, 70 for good, below 0 for bad.

The package `ssimulacra2` (BSD) measures it. Its scores can be compared with each other, but not with those of libjxl's
tool: it treats the borders of the picture otherwise, and lies lower at low quality (docs/evaluation.md has numbers).
"""

import importlib.util
import io
from importlib.metadata import version

from PIL import Image

from bls.pixels import Pixels

MIN_SIDE = 8
INSTALL = "pip install 'bls-codec[compare]'"


def package_version() -> str | None:
    """Return the version of the package that measures it, None where it is not installed."""
    return version("ssimulacra2") if importlib.util.find_spec("ssimulacra2") is not None else None


def ssimulacra2(x: Pixels, x_hat: Pixels) -> float | None:
    """Return the score; None for an image with a side below 8 pixels, and without the package."""
    if min(x.shape[:2]) < MIN_SIDE or package_version() is None:
        return None
    from ssimulacra2 import compute_ssimulacra2

    return float(compute_ssimulacra2(_file(x), _file(x_hat)))


def _file(x: Pixels) -> io.BytesIO:
    """Return an image as the file that the package asks for."""
    file = io.BytesIO()
    Image.fromarray(x).save(file, "ppm")
    file.seek(0)
    return file
