"""Uniform scalar quantisation (Ballé et al., ICLR 2017)."""

from jaxtyping import Float
from torch import Tensor


def quantize(y: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Round to the nearest integer, halves to even."""
    return y.round()
