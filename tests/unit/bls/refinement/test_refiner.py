"""Effort as a user meets it: fewer bits for the same error, the same decoder, and never worse."""

import functools

import numpy as np
import pytest
import torch
from skimage import data

from bls.bundle import Bundle
from bls.codec import Codec, make_header
from bls.entropy.coders import CODERS
from bls.ladder import lmbda_of
from bls.measures import images as measures
from bls.refinement import refiner
from tests.bundles import small_network
from tests.images import random_fields


@functools.cache
def _codec(channels: int = 3) -> Codec:
    return Codec(Bundle([small_network(3, 5, channels=channels)]), precision="float32")


def _image(height: int, width: int, *, gray: bool = False) -> np.ndarray:
    field = random_fields(1, max(height, width), seed=height + width)[0, :, :height, :width]
    pixels: np.ndarray = (255 * field.permute(1, 2, 0)).round().byte().numpy()
    return pixels[:, :, 0] if gray else pixels


def _loss(x: np.ndarray, stream: bytes, *, quality: float) -> float:
    height, width = x.shape[:2]
    mse_255 = measures.mse_255(x, _codec().decompress(stream))
    return lmbda_of(quality) * mse_255 + measures.bpp(len(stream), height=height, width=width)


@pytest.mark.parametrize("coder", CODERS)
@pytest.mark.parametrize("gray", [False, True])
def test_more_effort_loses_less_at_every_coder(gray: bool, coder: str) -> None:
    x = _image(60, 50, gray=gray)
    losses = [
        _loss(x, _codec().compress(x, quality=4.37, coder=coder, effort=effort), quality=4.37) for effort in range(4)
    ]
    assert losses[0] > losses[1] > losses[3] and losses[2] > losses[3]


@pytest.mark.parametrize(("effort", "gain"), [(1, 0.02), (2, 0.03), (3, 0.04)])
def test_a_photograph_gains_what_the_documentation_promises(effort: int, gain: float) -> None:
    x, codec = data.astronaut()[:128, 160:288], Codec.load()

    def loss(effort: int) -> float:
        stream = codec.compress(x, quality=4, effort=effort)
        return codec.lmbda(4) * measures.mse_255(x, codec.decompress(stream)) + len(stream) * 8 / 128**2

    assert loss(effort) < (1 - gain) * loss(0)


def test_a_batch_of_all_kinds_comes_back_in_order() -> None:
    images = [_image(40, 50), _image(33, 64), _image(48, 64, gray=True), _image(1, 1), _image(48, 60)]
    batch = _codec().compress_batch(images, quality=4, effort=2)
    for x, stream, restored in zip(images, batch, _codec().decompress_batch(batch), strict=True):
        assert restored.shape == x.shape
        alone = _loss(x, _codec().compress(x, quality=4, effort=2), quality=4)
        assert _loss(x, stream, quality=4) == pytest.approx(alone, rel=0.01)
        assert _loss(x, stream, quality=4) <= _loss(x, _codec().compress(x, quality=4), quality=4)


def test_a_grayscale_model_is_refined_too() -> None:
    codec, x = _codec(channels=1), _image(64, 64, gray=True)

    def loss(effort: int) -> float:
        stream = codec.compress(x, quality=4, effort=effort)
        return lmbda_of(4) * measures.mse_255(x, codec.decompress(stream)) + len(stream) * 8 / 64**2

    assert loss(3) < loss(0)


def test_what_is_not_better_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    x = _image(64, 64)
    plain = _codec().compress(x, quality=4)
    monkeypatch.setattr(refiner, "refine", lambda objective, v, *_, effort: 3 * v.round())
    assert _codec().compress(x, quality=4, effort=3) == plain


def test_pixels_of_the_padding_do_not_count() -> None:
    """A wide margin of padding must not draw bits away from the image."""
    x = _image(17, 17)  # coded at 32x32
    (symbols,) = _codec().analyze([x], quality=4, effort=3)
    (other,) = _codec().analyze([np.pad(x, ((0, 15), (0, 15), (0, 0)), mode="symmetric")], quality=4, effort=3)
    header = make_header(x, quality=4, coder="mixed")

    def loss(symbols: np.ndarray) -> float:
        return _loss(x, _codec().encode(symbols, header=header), quality=4)

    assert loss(symbols) < loss(other)


def test_equal_calls_give_equal_bytes_also_under_inference_mode() -> None:
    x = _image(64, 48)
    first = _codec().compress(x, quality=4, effort=2)
    with torch.inference_mode():
        assert _codec().compress(x, quality=4, effort=2) == first


@pytest.mark.parametrize("effort", [-1, 9])
def test_levels_that_do_not_exist_are_refused(effort: int) -> None:
    with pytest.raises(ValueError, match=f"effort is {effort}, expected"):
        _codec().compress(_image(16, 16), quality=4, effort=effort)
