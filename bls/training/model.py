"""The trainable model: transforms and density, and the relaxed rate-distortion loss (ICLR 2017, section 4).

    loss = lmbda * 255**2 * mse + bpp          images in [0, 1]

is the weight's meaning throughout this project. Letters in shapes: b batch, c image channels, h and w image size, n
filters.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bls.training.density import Density
from bls.training.distortion import Distortion, mse_255
from bls.training.noise import add_uniform_noise
from bls.training.parallel import BatchPart
from bls.transforms.networks import AnalysisTransform, SynthesisTransform, TransformConfig
from bls.transforms.quantization import quantize


class RelaxedLoss(NamedTuple):
    """What one relaxed forward pass gives; scalars but for the latents."""

    loss: Tensor
    bpp: Tensor
    distortion: Tensor
    mse_255: Tensor
    y: Tensor
    """Latents before the noise, detached: what the density is updated with."""


class Model(nn.Module):
    """One fitted point of the rate-distortion curve: g_a, g_s, and the density of the latents."""

    def __init__(self, config: TransformConfig, *, half_range: int = 16) -> None:
        super().__init__()
        self.config = config
        self.analysis = AnalysisTransform(config)
        self.synthesis = SynthesisTransform(config)
        self.density = Density(config.latents, half_range=half_range)

    def forward(
        self,
        x: Float[Tensor, "b c h w"],
        *,
        lmbda: float,
        distortion: Distortion = mse_255,
        generator: torch.Generator | None = None,
        part: BatchPart | None = None,
        rounding: bool = False,
    ) -> RelaxedLoss:
        """Return the relaxed loss of an image batch: uniform noise stands for rounding, the density for the coder.

        With `rounding`, latents are rounded instead: the loss is no relaxed one, and only the synthesis has a gradient.
        Of a `part` of a batch, all that the loss consists of is this part's share in the batch's: summed over the
        parts, it is what the whole batch gives, noise included.
        """
        part = part or BatchPart(0, len(x), len(x))
        with torch.set_grad_enabled(torch.is_grad_enabled() and not rounding):
            y = self.analysis(x).float()
        y_tilde = quantize(y) if rounding else add_uniform_noise(y, generator, part)
        x_tilde = self.synthesis(y_tilde).float()
        share = part.count / part.total
        bpp = self.density.bits(y_tilde).sum() / (part.total * x.shape[2] * x.shape[3])
        d = share * distortion(x, x_tilde)
        with torch.no_grad():
            mse = d if distortion is mse_255 else share * mse_255(x, x_tilde)
        return RelaxedLoss(lmbda * d + bpp, bpp, d, mse, y.detach())
