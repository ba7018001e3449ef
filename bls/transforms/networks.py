"""The analysis and synthesis transforms g_a and g_s (Ballé, Laparra, Simoncelli, ICLR 2017, section 3 and figure 2).

Three stages each: convolution, downsampling, GDN; mirrored as IGDN, upsampling, convolution. 16x in all.
Where this departs from the paper is decided by `TransformConfig` and measured in docs/decisions/0002-constraints.md.

Letters in shapes: b batch, c image channels, m latent channels, h and w image rows and columns, hl and wl latent rows
and columns.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from bls.transforms.gdn import GDN
from bls.transforms.layers import Downsample, Upsample

DOWNSAMPLING = 16


@dataclass(frozen=True)
class TransformConfig:
    """What fixes the transforms' architecture and the constraints on their parameters."""

    num_filters: int = 128
    """Filters per stage, the paper's N: 128 for low rates, 192 for high ones."""
    num_latents: int | None = None
    """Channels of the latents. Default: the number of filters, as in the paper (docs/decisions/0004-filters.md)."""
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
