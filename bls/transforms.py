"""The analysis and synthesis transforms g_a and g_s (Ballé, Laparra, Simoncelli, ICLR 2017, section 3 and figure 2).

Three stages each: convolution, downsampling, GDN; mirrored as IGDN, upsampling, convolution. 16x in all.
Where this departs from the paper is decided by `TransformConfig` and measured in docs/decisions/0002-constraints.md.

Letters in shapes: b batch, c image channels, m latent channels, h and w image rows and columns, hl and wl latent rows
and columns.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

from bls.gdn import GDN

DOWNSAMPLING = 16


@dataclass(frozen=True)
class TransformConfig:
    """What fixes the transforms' architecture and the constraints on their parameters."""

    num_filters: int = 128
    """Filters per stage, the paper's N: 128 for low rates, 192 for high ones."""
    num_latents: int | None = None
    """Channels of the latents; without it as many as filters, as in the paper (docs/decisions/0004-filters.md)."""
    channels: int = 3
    """Image channels: 1 (grayscale) or 3 (RGB)."""
    latent_gdn: bool = False
    """GDN after the last analysis stage and IGDN before the first synthesis stage, as in the paper."""
    unit_norm: bool = False
    """Divide every filter by its norm after each step, as in the paper."""
    symmetric_gamma: bool = True
    """Average gamma' with its transpose after each step, as in the paper."""

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise ValueError(f"images have {self.channels} channels, expected 1 (grayscale) or 3 (RGB)")
        if self.num_filters < 1 or self.latents < 1:
            raise ValueError(f"{self.num_filters} filters and {self.latents} latents, expected at least 1 of both")
        if self.unit_norm and not self.latent_gdn:
            raise ValueError("unit_norm without latent_gdn leaves the latents no scale: set latent_gdn too")

    @property
    def latents(self) -> int:
        """Channels of the latents."""
        return self.num_latents or self.num_filters


def mirror_pad(x: Float[Tensor, "b c h w"], before: int, after: int) -> Float[Tensor, "b c hp wp"]:
    """Extend rows and columns by their mirror image, edge pixel repeated: the paper's boundary, no mode of torch."""
    for dim in (2, 3):
        size = x.shape[dim]
        parts = [x.narrow(dim, 0, before).flip(dim)] if before else []
        parts.append(x)
        if after:
            parts.append(x.narrow(dim, size - after, after).flip(dim))
        x = torch.cat(parts, dim)
    return x


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


class Downsample(nn.Conv2d):
    """Mirror-pad, filter, keep every `stride`-th sample: output (i, j) sees the block at stride * (i, j) centred."""

    def __init__(self, channels_in: int, channels_out: int, size: int, stride: int) -> None:
        super().__init__(channels_in, channels_out, size, stride)
        self.before = block_offset(size, stride)
        self.after = size - stride - self.before

    def forward(self, x: Tensor) -> Tensor:
        """Filter and downsample; rows and columns must be multiples of the stride."""
        return super().forward(mirror_pad(x, self.before, self.after))


FEW_CHANNELS = 16
"""Below so many output channels a transposed convolution leaves most of a CPU's vector units idle."""


class Upsample(nn.ConvTranspose2d):
    """Insert zeros and filter: with the same filters the adjoint of `Downsample`, boundaries aside.

    Few output channels are computed as a convolution with more of them, one for each sample of a block of
    `stride x stride`, which are then laid out: the same sums in less than half the time.
    """

    def __init__(self, channels_in: int, channels_out: int, size: int, stride: int) -> None:
        # One mirrored sample a side is all that reaches into the output; what it adds outside is cropped again.
        crop = stride + block_offset(size, stride)
        super().__init__(channels_in, channels_out, size, stride, crop, output_padding=2 * crop - stride - size)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Upsample and filter."""
        x = mirror_pad(x, 1, 1)
        if self.out_channels >= FEW_CHANNELS:
            return super().forward(x, output_size)
        stride = self.stride[0]
        bias = None if self.bias is None else self.bias.repeat_interleave(stride**2)
        blocks = nn.functional.conv2d(x, self._block_filters(), bias)
        return nn.functional.pixel_shuffle(blocks, stride)

    def _block_filters(self) -> Float[Tensor, "oss i 3 3"]:
        """Return the filters that yield a block from the sample there and its neighbours, zero where they reach past.

        Sample p of block b takes tap `p + offset - stride * d` of the filter from sample b + d.
        """
        (size, _), (stride, _) = self.kernel_size, self.stride
        before = stride - block_offset(size, stride)
        taps = nn.functional.pad(self.weight, (before, 3 * stride - size - before) * 2)
        taps = taps.reshape(self.in_channels, self.out_channels, 3, stride, 3, stride).flip(2, 4)  # axes i o d p d p
        return taps.permute(1, 3, 5, 0, 2, 4).flatten(0, 2)


def block_offset(size: int, stride: int) -> int:
    """Return where a block of `stride` samples starts within a kernel of `size`, nearest to its centre."""
    return (size - stride + 1) // 2


STAGES = ((9, 4), (5, 2), (5, 2))
"""Kernel size and stride of the analysis stages; the synthesis runs them in reverse."""


class AnalysisTransform(nn.Sequential):
    """g_a: image (values in [0, 1]) to latents at 1/16 of its resolution."""

    def __init__(self, config: TransformConfig) -> None:
        n = config.num_filters
        widths = (config.channels, n, n, config.latents)
        layers: list[nn.Module] = []
        for stage, (size, stride) in enumerate(STAGES):
            layers.append(Downsample(widths[stage], widths[stage + 1], size, stride))
            if stage < len(STAGES) - 1 or config.latent_gdn:
                layers.append(GDN(widths[stage + 1]))
        super().__init__(*layers)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b m hl wl"]:
        """Transform an image batch; rows and columns must be multiples of 16."""
        y: Tensor = super().forward(x - 0.5)  # type: ignore[no-untyped-call]
        return y


class SynthesisTransform(nn.Sequential):
    """g_s: latents to image; values may leave [0, 1] and are clipped by whoever shows them."""

    def __init__(self, config: TransformConfig) -> None:
        n = config.num_filters
        widths = (config.channels, n, n, config.latents)
        layers: list[nn.Module] = []
        for stage, (size, stride) in reversed(list(enumerate(STAGES))):
            if stage < len(STAGES) - 1 or config.latent_gdn:
                layers.append(GDN(widths[stage + 1], inverse=True))
            layers.append(Upsample(widths[stage + 1], widths[stage], size, stride))
        super().__init__(*layers)

    def forward(self, y: Float[Tensor, "b m hl wl"]) -> Float[Tensor, "b c h w"]:
        """Transform a batch of latents."""
        x: Tensor = super().forward(y)  # type: ignore[no-untyped-call]
        return x + 0.5


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
