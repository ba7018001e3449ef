from dataclasses import replace

import numpy as np
import pytest
import torch

from bls.training.thumbnails import add_thumbnails, fit_thumbnail_filter
from bls.transforms.thumbnails import ThumbnailFilter
from tests.bundles import small_network
from tests.images import random_fields
from tests.unit.bls.transforms.test_thumbnails import random_filter


def test_a_known_filter_is_found() -> None:
    known, rng = random_filter(), np.random.default_rng(1)
    scale, mean = np.array([0.1, 1, 20, 3, 0.5])[:, None, None], np.array([0, 5, -40, 0, 1])[:, None, None]
    latents = [torch.from_numpy(mean + scale * rng.standard_normal((5, 30, 40))).float() for _ in range(20)]
    examples = [(y, torch.nn.functional.pixel_unshuffle(known(y[None], scale=8), 2)[0]) for y in latents]
    found = fit_thumbnail_filter(examples)
    np.testing.assert_allclose(found.weight, known.weight, rtol=0.01, atol=0.01)
    np.testing.assert_allclose(found.bias, known.bias, atol=0.5)  # of values up to 100


def test_a_latent_that_is_constant_has_no_weight() -> None:
    y = torch.randn(20, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    y[:, 1] = 7
    found = fit_thumbnail_filter([(each, each[:1].expand(4, -1, -1)) for each in y])
    assert np.abs(found.weight[:, 1]).max() < 1e-3
    assert found.weight[:, 0, 1, 1] == pytest.approx(1, abs=1e-2)


def test_thumbnails_are_added_and_nothing_else_changes() -> None:
    network = small_network(3, 5)
    bare = replace(network, thumbnails=None)
    again = add_thumbnails(bare, random_fields(8, 64, seed=0).split(2))
    assert again.to_bytes() == network.to_bytes()  # the images that it was made from
    other = add_thumbnails(bare, random_fields(8, 64, seed=1).split(2))
    assert isinstance(other.thumbnails, ThumbnailFilter)
    assert other.thumbnails_fingerprint != network.thumbnails_fingerprint
    assert replace(other, thumbnails=None).to_bytes() == bare.to_bytes()
    assert other.fingerprint == network.fingerprint == bare.fingerprint


def test_without_images_nothing_is_fitted() -> None:
    with pytest.raises(ValueError, match="no images"):
        add_thumbnails(small_network(), [])
