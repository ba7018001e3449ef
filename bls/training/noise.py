"""Uniform noise, which stands for rounding in training (Ballé et al., ICLR 2017, section 4)."""

import torch
from jaxtyping import Float
from torch import Tensor

from bls.training.parallel import BatchPart
from bls.transforms.quantization import quantize


def add_uniform_noise(
    y: Float[Tensor, "*shape"], generator: torch.Generator | None = None, part: BatchPart | None = None
) -> Float[Tensor, "*shape"]:
    """Return `y_tilde = y + U(-1/2, 1/2)`: same marginal density at the integers as rounding, but differentiable.

    A `part` of a batch gets the noise that it would get within the whole batch.
    """
    part = part or BatchPart(0, len(y), len(y))
    noise = torch.rand((part.total, *y.shape[1:]), generator=generator, device=y.device, dtype=y.dtype)
    return y + part.take(noise) - 0.5


def straight_through(y: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return rounded latents whose gradient is that of the latents themselves."""
    return y + (quantize(y) - y).detach()
