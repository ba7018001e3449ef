import io
import struct
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image
from skimage import data

from bls.measures.images import mse_255
from bls.pixels import Pixels
from pipeline import baselines
from pipeline.baselines import BASELINES, avif, jpeg_xl
from tests.codecs import skip_if_missing


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
    assert avif_subsampling(baselines.encode(photograph, avif("4:2:0", tune=None), 50)) == (1, 1)
    assert avif_subsampling(baselines.encode(photograph, avif("4:4:4", tune=None), 50)) == (0, 0)


def test_avif_tuned_for_psnr_has_the_smaller_error(photograph: Pixels) -> None:
    def at_equal_size(codec: str) -> Pixels:
        skip_if_missing(codec)
        files = [baselines.encode(photograph, codec, setting) for setting in range(20, 80)]
        return baselines.decode(min(files, key=lambda file: abs(len(file) - 6000)), gray=False)

    psnr, iq = at_equal_size("avif-444-psnr"), at_equal_size("avif-444-iq")
    assert mse_255(photograph, psnr) < mse_255(photograph, iq)


def test_slower_encoders_need_fewer_bytes(photograph: Pixels) -> None:
    skip_if_missing("jpeg-xl")
    fast, slow = (avif("4:4:4", tune="psnr", speed=speed) for speed in (9, 4))
    assert len(baselines.encode(photograph, slow, 50)) < len(baselines.encode(photograph, fast, 50))
    fast, slow = (jpeg_xl(effort=effort) for effort in (3, 7))
    assert len(baselines.encode(photograph, slow, 2)) < len(baselines.encode(photograph, fast, 2))


@pytest.mark.parametrize("codec", BASELINES)
def test_ladders_rise_in_rate_and_quality_over_what_matters(codec: str, photograph: Pixels) -> None:
    skip_if_missing(codec)
    files = [baselines.encode(photograph, codec, setting) for setting in BASELINES[codec].settings]
    bpp = [8 * len(file) / photograph[..., 0].size for file in files]
    errors = [mse_255(photograph, baselines.decode(file, gray=False)) for file in files]
    assert all(low < high for low, high in pairwise(bpp))
    assert all(more > less for more, less in pairwise(errors))
    assert bpp[0] < 0.5 and bpp[-1] > 1.3  # some hundred bytes of a file are its headers
    if codec != "jpeg-xl":
        formats = {Image.open(io.BytesIO(file)).format for file in files}
        assert formats == {BASELINES[codec].format.upper()}


@pytest.mark.parametrize("codec", BASELINES)
@pytest.mark.parametrize("shape", [(1, 1), (7, 9), (40, 50)])
def test_grayscale_images_of_any_size_come_back_as_such(codec: str, shape: tuple[int, int]) -> None:
    skip_if_missing(codec)
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
    baselines.check_codecs(("jpeg-420", "jpeg2000", "webp"))
    with pytest.raises(ValueError, match="--codecs has bpg, expected some of jpeg-420 jpeg-444"):
        baselines.check_codecs(("webp", "bpg"))
    assert all(version != "unknown" for version in baselines.library_versions().values())


@pytest.fixture
def forgetful() -> Iterator[None]:
    """Look again for what a machine has, and once more for the tests that follow."""
    baselines.missing.cache_clear()
    yield
    baselines.missing.cache_clear()


@pytest.mark.usefixtures("forgetful")
def test_without_imagecodecs_there_is_no_jpeg_xl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'bls-codec\[compare\]', or leave jpeg-xl out of --codecs"):
        baselines.check_codecs(("webp", "jpeg-xl"))
    assert "jpegxl" not in baselines.library_versions()


@pytest.mark.usefixtures("forgetful")
def test_an_encoder_that_does_not_know_a_tuning_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "BASELINES", {"avif-444-new": avif("4:4:4", tune="unheard-of")})
    with pytest.raises(ValueError, match=r"AVIF encoder refuses avif-444-new .*: install a newer Pillow"):
        baselines.check_codecs(("avif-444-new",))


@pytest.mark.usefixtures("forgetful")
def test_a_pillow_without_a_format_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.features.check", lambda name: name != "webp")
    assert "this Pillow has no webp" in baselines.missing("webp") and not baselines.missing("jpeg-420")
