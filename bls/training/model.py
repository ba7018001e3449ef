"""The trainable model: transforms, gains and density, and the relaxed rate-distortion loss (ICLR 2017, section 4).

    loss = lmbda * 255**2 * mse + bpp          images in [0, 1]

is the weight's meaning throughout this project; each patch of a batch has a quality, and so a weight, of its own.
Letters in shapes: b batch, c image channels, h and w image size, m latent channels, hl and wl latent size.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from bls.ladder import QualityRange, lmbda_of
from bls.training.context import ContextRate
from bls.training.density import Density
from bls.training.distortion import Distortion, mse_255
from bls.training.gains import Gains
from bls.training.noise import add_uniform_noise, straight_through
from bls.training.parallel import BatchPart
from bls.transforms.networks import AnalysisTransform, SynthesisTransform, TransformConfig
from bls.transforms.quantization import quantize

USED_SPREAD = 0.3
"""Root mean square, in steps of the quantiser, above which a channel's symbols are not almost all zero."""


class RelaxedLoss(NamedTuple):
    """What one relaxed forward pass gives: the latents, and means over the batch as scalars."""

    loss: Tensor
    bpp: Tensor
    distortion: Tensor
    mse_255: Tensor
    y: Tensor
    """Latents before gain and noise, detached: what the density is updated with."""


class Model(nn.Module):
    """A piece of the rate-distortion curve, or a point of it: g_a, g_s, the gains, and the density of the latents.

    With `context_rate` there is a network that predicts each latent from those before it, as the entropy coders do.
    """

    def __init__(
        self, config: TransformConfig, qualities: QualityRange, *, half_range: int = 16, context_rate: bool = False
    ) -> None:
        super().__init__()
        self.config = config
        self.qualities = qualities
        self.gains = Gains(config.latents, qualities)
        self.analysis = AnalysisTransform(config)
        self.synthesis = SynthesisTransform(config)
        self.density = Density(config.latents, half_range=half_range)
        self.context = ContextRate(config.latents) if context_rate else None

    def forward(
        self,
        x: Float[Tensor, "b c h w"],
        quality: Float[Tensor, " b"],
        *,
        lmbda_scale: float = 1.0,
        distortion: Distortion = mse_255,
        generator: torch.Generator | None = None,
        part: BatchPart | None = None,
        rounding: bool = False,
    ) -> RelaxedLoss:
        """Return the relaxed loss of an image batch: uniform noise stands for rounding, the density for the coder.

        A network of a range sees rounded latents, through which the gradient passes as if they were not; the noise is
        then in the rate alone (D. Minnen, S. Singh, "Channel-wise autoregressive entropy models", ICIP 2020).

        `lmbda_scale` multiplies the weights of distortions that are not squared errors. The losses of a range's
        qualities are weighted so that none dominates; a single quality has weight 1. With `rounding`, latents are
        rounded instead of perturbed. The loss is then not relaxed, and only the synthesis transform gets a gradient.
        With a `part` of a batch, every term is this part's share: summed over all parts, the terms are those of the
        whole batch, noise included.
        """
        part = part or BatchPart(0, len(x), len(x))
        with torch.set_grad_enabled(torch.is_grad_enabled() and not rounding):
            y = self.analysis(x).float()
            gain = self.gains(quality)
            v = y * gain
        v_tilde = quantize(v) if rounding else add_uniform_noise(v, generator, part)
        # At the lowest rate of a range, channels that only the highest uses would be nothing but noise.
        decoded = v_tilde if self.qualities.is_single else straight_through(v)
        x_tilde = self.synthesis(decoded / gain).float()
        bpp = -self._probability(v, v_tilde, gain, quality).log2().sum((1, 2, 3)) / (x.shape[2] * x.shape[3])
        d = distortion(x, x_tilde)
        lmbda = lmbda_of(quality)
        loss = self._weight(lmbda) * (lmbda_scale * lmbda * d + bpp)
        with torch.no_grad():
            mse = d if distortion is mse_255 else mse_255(x, x_tilde)
        loss, bpp, d, mse = (each.sum() / part.total for each in (loss, bpp, d, mse))
        return RelaxedLoss(loss, bpp, d, mse, y.detach())

    @torch.no_grad()
    def used_channels(self) -> Bool[Tensor, " m"]:
        """Return which channels are more than zeros in the middle of the range."""
        gain = self.gains(torch.tensor([self.qualities.middle], device=self.gains.points.device))[0, :, 0, 0]
        used: Tensor = self.density.spread() * gain > USED_SPREAD
        return used

    def _probability(
        self,
        v: Float[Tensor, "b m hl wl"],
        v_tilde: Float[Tensor, "b m hl wl"],
        gain: Float[Tensor, "b m 1 1"],
        quality: Float[Tensor, " b"],
    ) -> Float[Tensor, "b m hl wl"]:
        """Return the probability of each noisy latent, with contexts from rounded ones where the rate has contexts."""
        static: Tensor = self.density(v_tilde, gain)
        if self.context is None:
            return static
        spread = self.density.spread()[:, None, None] * gain
        half = (self.qualities.high - self.qualities.low) / 2 or 1.0
        place = (quality - self.qualities.middle) / half
        probability: Tensor = self.context(straight_through(v), v_tilde, spread=spread, static=static, quality=place)
        return probability

    def _weight(self, lmbda: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Return the weight of a quality's loss: the loss itself grows about as the root of lambda."""
        return (lmbda_of(self.qualities.middle) / lmbda).sqrt()
