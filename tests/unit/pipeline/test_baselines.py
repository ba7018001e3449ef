import io
import struct
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image
from skimage import data

from bls.measures.images import mse_255
from bls.pixels import Pixels
from pipeline import baselines
from pipeline.baselines import BASELINES


@pytest.fixture(scope="module")
def photograph() -> Pixels:
    x: Pixels = data.astronaut()[100:300, 150:390]
    return x


def jpeg_sampling(file: bytes) -> list[tuple[int, int]]:
    """Return the sampling factors of each component, from the start-of-frame marker."""
    position = 2
    while file[position + 1] not in (0xC0, 0xC1, 0xC2):
        position += 2 + struct.unpack_from(">H", file, position + 2)[0]
    components = file[position + 10 : position + 10 + 3 * file[position + 9]]
    return [(factors >> 4, factors & 15) for factors in components[1::3]]


def avif_subsampling(file: bytes) -> tuple[int, int]:
    """Return the two subsampling flags of the codec configuration box."""
    flags = file[file.index(b"av1C") + 6]
    return flags >> 3 & 1, flags >> 2 & 1


def test_jpeg_subsamples_the_chroma_that_its_name_says(photograph: Pixels) -> None:
    assert jpeg_sampling(baselines.encode(photograph, "jpeg-420", 50)) == [(2, 2), (1, 1), (1, 1)]
    assert jpeg_sampling(baselines.encode(photograph, "jpeg-444", 50)) == [(1, 1), (1, 1), (1, 1)]


def test_avif_subsamples_the_chroma_that_its_name_says(photograph: Pixels) -> None:
    assert avif_subsampling(baselines.encode(photograph, "avif-420", 50)) == (1, 1)
    assert avif_subsampling(baselines.encode(photograph, "avif-444", 50)) == (0, 0)


@pytest.mark.parametrize("codec", BASELINES)
def test_ladders_rise_in_rate_and_quality_over_what_matters(codec: str, photograph: Pixels) -> None:
    files = [baselines.encode(photograph, codec, setting) for setting in BASELINES[codec].settings]
    bpp = [8 * len(file) / photograph[..., 0].size for file in files]
    errors = [mse_255(photograph, baselines.decode(file, gray=False)) for file in files]
    assert all(low < high for low, high in pairwise(bpp))
    assert all(more > less for more, less in pairwise(errors))
    assert bpp[0] < 0.5 and bpp[-1] > 1.3  # some hundred bytes of a file are its headers
    formats = {Image.open(io.BytesIO(file)).format for file in files}
    assert formats == {BASELINES[codec].format.upper()}


@pytest.mark.parametrize("codec", BASELINES)
@pytest.mark.parametrize("shape", [(1, 1), (7, 9), (40, 50)])
def test_grayscale_images_of_any_size_come_back_as_such(codec: str, shape: tuple[int, int]) -> None:
    x = np.full(shape, 100, np.uint8)
    x_hat = baselines.decode(baselines.encode(x, codec, BASELINES[codec].settings[-1]), gray=True)
    assert x_hat.shape == shape and x_hat.dtype == np.uint8
    assert mse_255(x, x_hat) < 4


def test_the_colour_transform_of_jpeg2000_is_used(photograph: Pixels) -> None:
    x_hat = baselines.decode(baselines.encode(photograph, "jpeg2000", 40), gray=False)
    file = io.BytesIO()
    Image.fromarray(photograph).save(file, "jpeg2000", quality_mode="rates", quality_layers=[40], irreversible=True)
    assert mse_255(photograph, x_hat) < 0.8 * mse_255(photograph, np.asarray(Image.open(file)))


def test_unknown_codecs_are_refused() -> None:
    baselines.check_codecs(tuple(BASELINES))
    with pytest.raises(ValueError, match="--codecs has bpg, expected some of jpeg-420 jpeg-444"):
        baselines.check_codecs(("webp", "bpg"))
    assert all(version != "unknown" for version in baselines.library_versions().values())
