"""Constraints on parameters in training: filters by their DCT, and the projections of the paper's appendix."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

from bls.transforms.gdn import GDN
from bls.transforms.layers import Downsample, Upsample
from bls.transforms.networks import TransformConfig


def dct_basis(size: int) -> Float[Tensor, "size size"]:
    """Return the orthonormal DCT-II basis: rows are frequencies, columns samples."""
    k, n = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    basis = torch.cos(math.pi * (2 * n + 1) * k / (2 * size)) * math.sqrt(2 / size)
    basis[0] /= math.sqrt(2)
    return basis


class DCTFilters(nn.Module):
    """Parameterise a filter bank by the DCT coefficients of each filter: the same filters, better scaled for Adam."""

    basis: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        basis = dct_basis(size)
        self.register_buffer("basis", torch.kron(basis, basis), persistent=False)

    def forward(self, coefficients: Float[Tensor, "o i k k"]) -> Float[Tensor, "o i k k"]:
        """Return the filters of the coefficients."""
        return (coefficients.flatten(2) @ self.basis).view_as(coefficients)

    def right_inverse(self, filters: Float[Tensor, "o i k k"]) -> Float[Tensor, "o i k k"]:
        """Return the coefficients of the filters."""
        return (filters.flatten(2) @ self.basis.T).view_as(filters)


def parameterize_by_dct(transform: nn.Module) -> None:
    """Make the optimiser see the DCT coefficients of every filter from now on."""
    for layer in transform.modules():
        if isinstance(layer, Downsample | Upsample):
            parametrize.register_parametrization(layer, "weight", DCTFilters(layer.kernel_size[0]))


@torch.no_grad()
def apply_constraints(transform: nn.Module, config: TransformConfig) -> None:
    """Project all parameters onto the constraints: to be called after every optimiser step (the paper's appendix)."""
    for layer in transform.modules():
        if isinstance(layer, GDN):
            layer.project(symmetric=config.symmetric_gamma)
        elif config.unit_norm and isinstance(layer, Downsample | Upsample):
            # Analysis: norm over space and input channels; synthesis: over space and output channels. Torch stores
            # transposed filters as (in, out, k, k), so both are "all dimensions but the first".
            layer.weight = layer.weight / layer.weight.square().sum((1, 2, 3), keepdim=True).sqrt()
