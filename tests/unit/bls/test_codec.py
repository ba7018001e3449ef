"""The codec as a user calls it: round trips, every kind of image, every kind of damage."""

import functools
import pickle
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage.data import astronaut

from bls import bitstream
from bls.bitstream import BitstreamError
from bls.bundle import Bundle, BundleError, load_bundle, save_bundle
from bls.codec import Codec, make_header
from bls.entropy.coders import CODERS
from bls.ladder import QualityError, index_of, lmbda_of
from bls.measures.images import psnr_db
from bls.measures.luma import LUMA_WEIGHTS
from bls.pixels import padded_shape
from bls.training.thumbnails import add_thumbnails
from bls.transforms.precision import Precision, takes_bfloat16
from bls.transforms.quantization import quantize
from bls.transforms.thumbnails import SCALES, Scale
from tests.bundles import small_network
from tests.images import random_fields


@functools.cache
def _codec(seed: int = 0) -> Codec:
    return Codec(Bundle([small_network(quality, seed=seed) for quality in (2, 4)]))


def _image(height: int, width: int, *, gray: bool = False) -> np.ndarray:
    field = random_fields(1, max(height, width), seed=height + width)[0, :, :height, :width]
    pixels: np.ndarray = (255 * field.permute(1, 2, 0)).round().byte().numpy()
    return pixels[:, :, 0] if gray else pixels


@pytest.mark.parametrize("coder", CODERS)
@pytest.mark.parametrize("gray", [False, True])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 40), (17, 16), (50, 33), (64, 64)])
def test_image_round_trips_in_its_own_shape(height: int, width: int, gray: bool, coder: str) -> None:
    x = _image(height, width, gray=gray)
    x_hat = _codec().decompress(_codec().compress(x, quality=4, coder=coder))
    assert x_hat.shape == x.shape and x_hat.dtype == np.uint8
    if height >= 50:
        assert np.square(x - x_hat.astype(float)).mean() < 0.6 * x.var()


@pytest.mark.parametrize("coder", CODERS)
def test_decoded_symbols_are_the_quantised_latents(coder: str) -> None:
    codec, x = _codec(), _image(70, 90)
    (symbols,) = codec.analyze([x], quality=2)
    header, decoded = codec.decode(codec.encode(symbols, header=make_header(x, quality=2, coder=coder)))
    np.testing.assert_array_equal(decoded, symbols)
    assert (header.height, header.width, header.gray, header.quality_index) == (70, 90, False, 512)


def test_a_higher_quality_costs_more_and_errs_less() -> None:
    codec, x = _codec(), _image(128, 128)
    sizes, errors = [], []
    for quality in (2, 4):
        data = codec.compress(x, quality=quality)
        sizes.append(len(data))
        errors.append(np.square(x - codec.decompress(data).astype(float)).mean())
    assert sizes[0] < sizes[1] and errors[0] > errors[1]


def test_a_batch_gives_what_single_images_give() -> None:
    codec = _codec()
    images = [_image(40, 50), _image(33, 64), _image(16, 16, gray=True), _image(48, 49)]
    batch = codec.compress_batch(images, quality=4)
    # Float sums depend on the batch, so a latent at the edge of rounding may differ: sizes and pixels hardly do.
    for image, together, restored in zip(images, batch, codec.decompress_batch(batch), strict=True):
        alone = codec.compress(image, quality=4)
        assert abs(len(alone) - len(together)) <= 4
        assert np.abs(codec.decompress(alone).astype(int) - restored).mean() < 0.5


def test_pil_images_are_accepted() -> None:
    codec, x = _codec(), _image(40, 40)
    assert codec.compress(Image.fromarray(x), quality=4) == codec.compress(x, quality=4)
    gray = Image.fromarray(x).convert("L")
    assert codec.decompress(codec.compress(gray, quality=4)).ndim == 2


def test_grayscale_is_replicated_and_comes_back_as_luma() -> None:
    codec, gray = _codec(), _image(48, 48, gray=True)
    colour = np.repeat(gray[:, :, None], 3, axis=2)
    (a,), (b,) = codec.analyze([gray], quality=4), codec.analyze([colour], quality=4)
    np.testing.assert_array_equal(a, b)
    luma = codec.decompress(codec.compress(colour, quality=4)) @ np.array(LUMA_WEIGHTS)
    assert np.abs(luma - codec.decompress(codec.compress(gray, quality=4))).max() <= 1


def test_a_grayscale_model_codes_grayscale_only() -> None:
    codec = Codec(Bundle([small_network(channels=1)]))
    gray = _image(32, 32, gray=True)
    assert codec.decompress(codec.compress(gray, quality=4)).shape == (32, 32)
    with pytest.raises(ValueError, match="the model codes grayscale"):
        codec.compress(_image(32, 32), quality=4)


@pytest.mark.parametrize(
    "image",
    [
        Image.new("RGBA", (8, 8)),
        Image.new("I;16", (8, 8)),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8), np.float32),
        np.zeros((0, 8), np.uint8),
    ],
)
def test_other_images_are_refused_with_what_is_expected(image: Image.Image | np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected"):
        _codec().compress(image, quality=4)


def test_unknown_quality_and_coder_name_the_choices() -> None:
    with pytest.raises(ValueError, match=r"quality is 3, the bundle serves 2, 4"):
        _codec().compress(_image(16, 16), quality=3)
    with pytest.raises(ValueError, match="expected mixed, adaptive, static"):
        _codec().compress(_image(16, 16), quality=4, coder="zip")


def test_any_quality_of_a_range_is_coded() -> None:
    codec, x = Codec(Bundle([small_network(2), small_network(3, 5)])), _image(128, 128)
    assert codec.quality_range == (2, 5)
    sizes, errors = [], []
    for quality in (3, 3.25, 3.5, 4, 4.5, 5):
        data = codec.compress(x, quality=quality)
        assert codec.decode(data)[0].quality_index == round(256 * quality)
        sizes.append(len(data))
        errors.append(np.square(x - codec.decompress(data).astype(float)).mean())
    assert sizes == sorted(sizes) and errors == sorted(errors, reverse=True)
    assert codec.lmbda(4.0) == pytest.approx(0.013, rel=0.01)


def test_a_batch_of_several_qualities_is_decoded() -> None:
    codec, x = Codec(Bundle([small_network(2), small_network(3, 5)])), _image(40, 50)
    streams = [codec.compress(x, quality=quality) for quality in (4.37, 2, 3, 4.37)]
    alone = [codec.decompress(stream) for stream in streams]
    for together, single in zip(codec.decompress_batch(streams), alone, strict=True):
        assert np.abs(together.astype(int) - single).max() <= 1


@pytest.mark.parametrize("quality", [0.99, 8.01, float("nan"), float("inf"), "4", None, True])
def test_a_quality_that_is_none_is_named(quality: Any) -> None:
    with pytest.raises(QualityError, match="expected a number from 1 to 8"):
        _codec().compress(_image(16, 16), quality=quality)


@pytest.mark.parametrize("coder", CODERS)
def test_every_flipped_bit_is_detected(coder: str) -> None:
    codec = _codec()
    data = codec.compress(_image(20, 20), quality=4, coder=coder)
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BitstreamError):
            codec.decompress(bytes(damaged))


@pytest.mark.parametrize("coder", CODERS)
def test_every_truncation_is_detected(coder: str) -> None:
    codec = _codec()
    data = codec.compress(_image(20, 20), quality=4, coder=coder)
    for length in range(len(data)):
        with pytest.raises(BitstreamError):
            codec.decompress(data[:length])


def test_another_models_bitstream_is_refused() -> None:
    with pytest.raises(BitstreamError, match="another model wrote it"):
        _codec(seed=1).decompress(_codec().compress(_image(16, 16), quality=4))
    other = Codec(Bundle([small_network(2)]))
    with pytest.raises(BitstreamError, match=r"quality is 4, the bundle serves 2"):
        other.decompress(_codec().compress(_image(16, 16), quality=4))


def _forged(height: int, width: int, coder: int, payload: bytes) -> bytes:
    """Return a bitstream with a valid checksum: what a hostile sender could make."""
    fields = 4 * 256 << 7 | bitstream.VERSION << 4 | coder << 2
    body = height.to_bytes(2, "big") + width.to_bytes(2, "big") + fields.to_bytes(3, "big") + payload
    return body + zlib.crc32(_codec().model_fingerprint(4) + body).to_bytes(4, "big")


@settings(max_examples=150)
@given(st.integers(0, 80), st.integers(0, 80), st.integers(0, 3), st.binary(max_size=200), st.integers(0, 255))
def test_forged_bitstreams_end_in_an_image_or_an_error(
    height: int, width: int, coder: int, payload: bytes, fill: int
) -> None:
    for content in (payload, bytes([fill]) * len(payload)):
        try:
            x_hat = _codec().decompress(_forged(height, width, coder, content))
        except BitstreamError:
            continue
        assert x_hat.shape == (height, width, 3)


@settings(max_examples=200)
@given(st.binary(max_size=100))
def test_any_bytes_end_in_an_image_or_an_error(data: bytes) -> None:
    with pytest.raises(BitstreamError):  # a checksum of 32 bits does not match by chance
        _codec().decompress(data)


@pytest.mark.parametrize("coder", [0, 1, 2])
def test_a_claim_of_4_gigapixels_is_refused_before_anything_is_allocated(coder: int) -> None:
    with pytest.raises(BitstreamError, match="max_pixels"):
        _codec().decompress(_forged(65535, 65535, coder, b""))


def test_an_image_over_the_tile_size_is_coded_without_seams() -> None:
    codec, x = _codec(), _image(48, 1100)
    (symbols,) = codec.analyze([x], quality=4)
    (cropped,) = codec.analyze([x[:, :1024]], quality=4)
    # Left of the cut both see the same pixels; latents at the edge of rounding may fall either way.
    assert np.mean(symbols[:, :, :60] != cropped[:, :, :60]) < 1e-3
    assert codec.decompress(codec.compress(x, quality=4)).shape == x.shape


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_each_precision_decodes_what_the_other_encoded(precision: Precision) -> None:
    bundle = Bundle([small_network(4)])
    codec, exact, x = Codec(bundle, precision=precision), Codec(bundle, precision="float32"), _image(128, 128)
    data = codec.compress(x, quality=4)
    assert len(data) == pytest.approx(len(exact.compress(x, quality=4)), rel=0.03)
    np.testing.assert_array_equal(codec.decode(data)[1], exact.decode(data)[1])
    difference = np.abs(codec.decompress(data).astype(int) - exact.decompress(data))
    # Eight bits of mantissa are seen, but barely: some pixels differ by a level or two.
    assert (difference.max() == 0) if precision == "float32" else (0 < difference.mean() < 0.5)


def test_bfloat16_is_taken_at_low_rates_where_the_device_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cpu")
    for has_it in (False, True):
        monkeypatch.setattr("bls.transforms.precision.has_bfloat16", lambda _, has_it=has_it: has_it)
        assert takes_bfloat16("auto", device, lmbda=0.013) == has_it
        assert not takes_bfloat16("auto", device, lmbda=0.0932)
        assert takes_bfloat16("bfloat16", device, lmbda=0.0932) and not takes_bfloat16("float32", device, lmbda=0.001)


def test_both_transforms_take_the_precision_of_their_quality(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    def takes(precision: Precision, device: torch.device, *, lmbda: float) -> bool:
        asked.append(lmbda)
        return False

    monkeypatch.setattr("bls.codec.takes_bfloat16", takes)
    codec, images = Codec(Bundle([small_network(2), small_network(3, 5)])), [_image(20, 20), _image(40, 20)]
    codec.decompress_batch(codec.compress_batch(images, quality=4.5))
    assert asked == [pytest.approx(lmbda_of(4.5))] * 4


def test_latents_are_quantised_to_the_symbols_of_any_quality() -> None:
    codec, x = Codec(Bundle([small_network(3, 5)]), precision="float32"), _image(70, 90)
    (latents,) = codec.latents([x], quality=3)
    for quality in (3, 4.37, 5):
        (symbols,) = codec.analyze([x], quality=quality)
        np.testing.assert_array_equal(codec.quantize(latents, quality=quality), symbols)


def test_estimated_bits_are_what_the_static_coder_needs() -> None:
    """The coder's integers lose less than half a percent against the density, its termination a few bytes."""
    codec, x = _codec(), _image(256, 256)
    (symbols,) = codec.analyze([x], quality=4)
    estimate = codec.estimate_bits(symbols, quality=4)
    header = make_header(x, quality=4, coder="static")
    payload_bits = 8 * (len(codec.encode(symbols, header=header)) - bitstream.MIN_BITSTREAM_NUM_BYTES)
    assert estimate < payload_bits < 1.005 * estimate + 64


def test_padding_is_to_multiples_of_16() -> None:
    assert [padded_shape(h, w) for h, w in ((1, 16), (17, 32), (65535, 15))] == [(16, 16), (32, 32), (65536, 16)]


def test_rounding_is_to_the_nearest_integer() -> None:
    y = torch.tensor([-1.6, -0.4, 0.4, 1.6, 7.0])
    assert quantize(y).tolist() == [-2, 0, 0, 2, 7]


def test_a_pickled_codec_is_the_name_of_its_bundle(tiny_bundle: Path) -> None:
    codec, x = Codec.load(tiny_bundle, max_pixels=400), _image(20, 20)
    pickled = pickle.dumps(codec)
    assert len(pickled) < 1000
    again = pickle.loads(pickled)
    bitstream = codec.compress(x, quality=4)
    assert again.compress(x, quality=4) == bitstream
    np.testing.assert_array_equal(again.decompress(bitstream), codec.decompress(bitstream))
    with pytest.raises(BitstreamError, match="the limit is 400"):
        again.decompress(codec.compress(_image(21, 20), quality=4))


def test_a_pickled_codec_without_a_folder_is_its_networks() -> None:
    x = _image(20, 20)
    assert pickle.loads(pickle.dumps(_codec())).compress(x, quality=4) == _codec().compress(x, quality=4)


@pytest.mark.parametrize("exchanged", ["analysis", "synthesis"])
def test_a_bundle_that_changed_since_it_was_pickled_is_noticed(exchanged: str, tmp_path: Path) -> None:
    network, other = small_network(4), small_network(4, seed=1)
    save_bundle(tmp_path, [network])
    pickled = pickle.dumps(Codec.load(tmp_path))
    weights = replace(network.weights, **{exchanged: getattr(other.weights, exchanged)})
    save_bundle(tmp_path, [replace(network, weights=weights)])
    with pytest.raises(BundleError, match="is not the bundle that was pickled"):
        pickle.loads(pickled)


def test_dequantised_symbols_are_close_to_the_latents() -> None:
    codec, x = _codec(), _image(40, 50)
    (y,) = codec.latents([x], quality=4)
    (symbols,) = codec.analyze([x], quality=4)
    y_hat = codec.dequantize(symbols, quality=4)
    step = 1 / codec.bundle.network(4).gains.at(index_of(4))[:, None, None]
    assert y_hat.shape == y.shape and (np.abs(y_hat - y) <= 0.501 * step).all()
    np.testing.assert_array_equal(codec.quantize(y_hat, quality=4), symbols)


@functools.cache
def _codec_with_thumbnails() -> Codec:
    """Return a codec of a range whose thumbnails are fitted to more images than a small network's."""
    return Codec(Bundle([add_thumbnails(small_network(3, 5), random_fields(16, 128, seed=3).split(4))]))


def _shrunk(x: np.ndarray, scale: int) -> np.ndarray:
    """Return the means of an image's blocks, the image extended by its mirror image to multiples of 16."""
    height, width = padded_shape(*x.shape[:2])
    padded = np.pad(x, ((0, height - x.shape[0]), (0, width - x.shape[1]), *[(0, 0)] * (x.ndim - 2)), mode="symmetric")
    means: np.ndarray = padded.reshape(height // scale, scale, width // scale, scale, *x.shape[2:]).mean((1, 3))
    return means[: -(-x.shape[0] // scale), : -(-x.shape[1] // scale)]


@pytest.mark.parametrize("quality", [3, 4.37, 5])
@pytest.mark.parametrize("gray", [False, True])
@pytest.mark.parametrize("scale", SCALES)
def test_a_thumbnail_is_about_what_the_decoded_image_shrinks_to(scale: Scale, gray: bool, quality: float) -> None:
    codec, x = _codec_with_thumbnails(), _image(150, 133, gray=gray)
    stream = codec.compress(x, quality=quality)
    small, shrunk, expected = (
        codec.thumbnail(stream, scale=scale),
        _shrunk(codec.decompress(stream), scale),
        _shrunk(x, scale),
    )
    error, error_of_decoded = (float(np.square(each - expected).mean() / expected.var()) for each in (small, shrunk))
    assert error < error_of_decoded + 0.02


@pytest.mark.parametrize("scale", SCALES)
def test_thumbnails_of_the_shipped_bundle_are_near_shrunk_photographs(scale: Scale) -> None:
    codec, x = Codec(load_bundle(None, quality=4)), astronaut()[:256, :256]
    small = codec.thumbnail(codec.compress(x, quality=4, coder="adaptive"), scale=scale)
    assert psnr_db(float(np.square(small - _shrunk(x, scale)).mean())) > 32


@pytest.mark.parametrize("coder", CODERS)
@pytest.mark.parametrize("gray", [False, True])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (8, 9), (17, 40), (50, 33)])
def test_thumbnails_have_a_pixel_for_each_block(height: int, width: int, gray: bool, coder: str) -> None:
    stream = _codec().compress(_image(height, width, gray=gray), quality=4, coder=coder)
    for scale in SCALES:
        small = _codec().thumbnail(stream, scale=scale)
        assert small.shape == (-(-height // scale), -(-width // scale), *[3] * (not gray)) and small.dtype == np.uint8


def test_thumbnails_have_no_seams() -> None:
    codec = _codec()
    header, symbols = codec.decode(codec.compress(_image(48, 1100), quality=4))
    (whole,) = codec.thumbnails([(header, symbols)])
    # The first tile ends at 64; a latent sees its neighbours alone.
    (right,) = codec.thumbnails([(replace(header, width=1100 - 16 * 60), symbols[:, :, 60:])])
    assert np.array_equal(whole[:, 61:], right[:, 1:])


def test_a_thumbnail_that_there_is_not_is_a_clear_error() -> None:
    stream = _codec().compress(_image(20, 20), quality=4)
    with pytest.raises(ValueError, match="scale is 4, expected one of 16, 8"):
        _codec().thumbnail(stream, scale=4)  # type: ignore[arg-type]
    bare = Codec(Bundle([replace(small_network(4), thumbnails=None)]))
    with pytest.raises(ValueError, match=r"qualities 4 has no thumbnails: docs/training.md says how to add"):
        bare.thumbnail(stream)
    assert np.array_equal(bare.decompress(stream), _codec().decompress(stream))
