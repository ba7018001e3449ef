"""A code length that is smooth in the latents, near to what the mixed coder spends.

It is that of the adaptive coder before it has learnt anything: a symbol's decisions cost what the stored probabilities
of its channel and context say, and the context follows from the activity around it (docs/entropy-coding.md). Between
integers, and between the centres of two contexts, lengths are interpolated. So a gradient knows both what a latent
costs and what it makes its neighbours cost. The contexts are causal, as the coder's: a rate from all neighbours would
promise savings that no decoder can follow.

Letters in shapes: b batch, m latent channels, hl and wl latent rows and columns, k contexts, d distances.
"""

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor
from torch.nn import functional

from bls.entropy.adaptive.model import NEIGHBOURS, AdaptiveModel
from bls.entropy.tree import (
    ACTIVITY_FRACTION_BITS,
    CONTEXT_STARTS,
    FURTHER_DECISION,
    IS_MODE_NOT,
    IS_SMALLER,
    MAX_MAGNITUDE,
    NUM_CONTEXTS,
)

REACH = 64
"""Distances from the mode whose code lengths are tabulated; beyond they go on as a straight line."""


class CodeLength:
    """The bits that symbols cost, as a differentiable function of latents in units of the quantiser's step."""

    def __init__(self, model: AdaptiveModel, device: torch.device) -> None:
        self._lengths = torch.from_numpy(code_lengths(model)).to(device).flatten()
        self._mode = torch.from_numpy(model.mode).to(device).float()[:, None, None]
        channels = torch.arange(model.channels, device=device)[:, None, None]
        self._first = channels * (NUM_CONTEXTS * (2 * REACH + 1))
        unit = 1 << ACTIVITY_FRACTION_BITS
        self._offset = torch.from_numpy(model.offset.astype(np.float32) / unit).to(device)
        self._neighbours = torch.from_numpy(_neighbour_filters(model) / unit).to(device)
        self._sources = torch.from_numpy(_source_filters(model) / unit).to(device)

    def __call__(self, v: Float[Tensor, "b m hl wl"]) -> Float[Tensor, "b m hl wl"]:
        """Return the bits of each latent."""
        distance = v - self._mode
        # The context counts from 0; its centre lies a quarter octave above its start.
        context = 2 * torch.log2(self._activity(distance).clamp_min(1) / CONTEXT_STARTS[0]) + 0.5
        context = context.clamp(0, NUM_CONTEXTS - 1.001)
        lower, place = context.detach().long(), distance + REACH
        left = place.detach().long().clamp(0, 2 * REACH - 1)
        index = self._first + lower * (2 * REACH + 1) + left
        between = place - left
        return torch.lerp(self._at(index, between), self._at(index + 2 * REACH + 1, between), context - lower)

    def _at(self, index: Tensor, between: Tensor) -> Tensor:
        return torch.lerp(self._lengths[index], self._lengths[index + 1], between)

    def _activity(self, distance: Tensor) -> Tensor:
        magnitude = distance.abs().clamp(max=MAX_MAGNITUDE)
        own = functional.conv2d(magnitude, self._neighbours, self._offset, padding=2, groups=len(self._offset))
        return own + functional.conv2d(magnitude, self._sources)


def code_lengths(model: AdaptiveModel) -> Float32[np.ndarray, "m k d"]:
    """Return the bits of each distance from the mode, -REACH to REACH, by channel and context.

    Where the coder's chain of questions ends and an escape begins, the chain goes on here: symbols there are rare.
    """
    probability = model.probabilities / 65536
    yes, no = -np.log2(probability), -np.log2(1 - probability)
    distances = np.arange(1, REACH + 1)
    decisions = FURTHER_DECISION[distances].astype(np.intp)
    reached = np.cumsum(yes[:, :, decisions], -1) - yes[:, :, decisions]
    size = yes[:, :, IS_MODE_NOT, None] + reached + no[:, :, decisions]
    smaller, larger = size + yes[:, :, IS_SMALLER, None], size + no[:, :, IS_SMALLER, None]
    return np.concatenate([smaller[:, :, ::-1], no[:, :, IS_MODE_NOT, None], larger], -1).astype(np.float32)


def _neighbour_filters(model: AdaptiveModel) -> Float32[np.ndarray, "m 1 5 5"]:
    filters = np.zeros((model.channels, 1, 5, 5), np.float32)
    for place, (row, column) in enumerate(NEIGHBOURS):
        filters[:, 0, 2 + row, 2 + column] = model.neighbour_weights[:, place]
    return filters


def _source_filters(model: AdaptiveModel) -> Float32[np.ndarray, "m m 1 1"]:
    filters = np.zeros((model.channels, model.channels), np.float32)
    channels = np.arange(model.channels)[:, None]
    np.add.at(filters, (channels, model.sources), model.source_weights)
    return filters[:, :, None, None]
