"""Fit the filter of thumbnails: least squares from rounded latents to the means of the image's blocks.

One filter serves the whole range of a network, as symbols are divided by their gains. Only sums over places are kept,
so images pass one at a time.

Letters in shapes: b batch, c channels, h and w rows and columns of pixels, hl and wl those of latents, n features of a
place, f values that they shall give.
"""

from collections.abc import Iterable
from dataclasses import replace
from itertools import cycle

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from bls.network import FittedNetwork
from bls.transforms.layers import mirror_pad
from bls.transforms.quantization import quantize
from bls.transforms.thumbnails import SUPPORT, ThumbnailFilter

RIDGE = 10.0
"""Penalty on the squared weights of features that are scaled to variance 1, as a number of places: few places are not
fitted to their last bit."""
MIN_VARIANCE = 1e-9
"""Of a feature; one that is constant gets no weight."""

Example = tuple[Float[Tensor, "c hl wl"], Float[Tensor, "f hl wl"]]
"""Latents of an image, and what `block_means` gives."""


def add_thumbnails(network: FittedNetwork, batches: Iterable[Float[Tensor, "b c h w"]]) -> FittedNetwork:
    """Return a network with a filter for thumbnails, fitted to whole images; all else of it stays as it is.

    Values of the images are in [0, 1], their sides multiples of 16. Some hundred images are enough.

    Raises:
        ValueError: there are no images.
    """
    analysis, _ = network.weights.transforms()
    examples = (example for x in batches for example in zip(analysis(x), block_means(x), strict=True))
    return with_thumbnails(network, examples)


@torch.no_grad()
def with_thumbnails(network: FittedNetwork, examples: Iterable[Example]) -> FittedNetwork:
    """Return a network with a filter for thumbnails, fitted to its latents of images; their qualities take turns.

    Raises:
        ValueError: there are no images.
    """
    gains = cycle(torch.from_numpy(network.gains.at(states.index))[:, None, None] for states in network.states)
    rounded = ((quantize(y * gain) / gain, means) for (y, means), gain in zip(examples, gains, strict=False))
    return replace(network, thumbnails=fit_thumbnail_filter(rounded))


def block_means(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b f hl wl"]:
    """Return the means of the four blocks of 8 x 8 pixels in the place of each latent."""
    return functional.pixel_unshuffle(functional.avg_pool2d(x, 8), 2)


def fit_thumbnail_filter(examples: Iterable[Example]) -> ThumbnailFilter:
    """Return the filter whose values have the least squared error.

    Raises:
        ValueError: there are no examples.
    """
    moments = Tensor()
    for y_hat, means in examples:
        features = functional.unfold(mirror_pad(y_hat[None], SUPPORT // 2, SUPPORT // 2), SUPPORT)[0]
        rows = torch.cat([features, means.flatten(1), torch.ones_like(features[:1])]).double()
        moments = rows @ rows.T + (moments if len(moments) else 0)
    if not len(moments):
        raise ValueError("no images to fit thumbnails to: pass some")
    num_latents, num_values = len(y_hat), len(means)
    weight, bias = _least_squares(moments, num_values)
    weight = weight.unflatten(1, (num_latents, SUPPORT, SUPPORT))
    return ThumbnailFilter(weight.half().numpy(), bias.half().numpy())


def _least_squares(moments: Float[Tensor, "m m"], num_values: int) -> tuple[Float[Tensor, "f n"], Float[Tensor, " f"]]:
    """Return weights and biases from the sums of products of features, values and 1, in this order."""
    num_places, num_features = moments[-1, -1], len(moments) - num_values - 1
    mean = moments[-1, :-1] / num_places
    covariance = moments[:-1, :-1] / num_places - mean.outer(mean)
    of_features, with_values = covariance[:num_features, :num_features], covariance[:num_features, num_features:]
    scale = of_features.diagonal().clamp_min(MIN_VARIANCE).sqrt()
    penalised = of_features / scale.outer(scale) + RIDGE / num_places * torch.eye(num_features)
    weight = (torch.linalg.solve(penalised, with_values / scale[:, None]) / scale[:, None]).T
    return weight, mean[num_features:] - weight @ mean[:num_features]
