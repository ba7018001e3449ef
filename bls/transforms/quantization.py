"""Uniform scalar quantisation, and the noise that stands for it in training (Ballé et al., ICLR 2017, section 4)."""

from jaxtyping import Float
from torch import Tensor


def quantize(y: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Round to the nearest integer, halves to even."""
    return y.round()
