"""Uniform scalar quantisation, and the noise that stands for it in training (Ballé et al., ICLR 2017, section 4)."""

import torch
from jaxtyping import Float
from torch import Tensor


def quantize(y: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Round to the nearest integer, halves to even."""
    return y.round()


def add_uniform_noise(y: Float[Tensor, "*shape"], generator: torch.Generator | None = None) -> Float[Tensor, "*shape"]:
    """Return `y_tilde = y + U(-1/2, 1/2)`: same marginal density at the integers as rounding, but differentiable."""
    noise = torch.rand(y.shape, generator=generator, device=y.device, dtype=y.dtype)
    return y + noise - 0.5
