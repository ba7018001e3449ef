"""The rate that a coder with contexts will spend: a causal network over rounded latents, for training alone.

The entropy coders predict each symbol from those before it, and spend about a fifth less than the density does; what
is fitted to the density's rate spends its capacity on making latents independent that the coder would predict anyway.
This network stands for the coder and is differentiable. Channels go in groups: a symbol is predicted from all earlier
groups around it, and from its own group above, to the left, and at its place in the channels before it. Groups as in
D. Minnen, S. Singh, "Channel-wise autoregressive entropy models" (ICIP 2020); masks as in A. van den Oord et al.,
"Conditional image generation with PixelCNN decoders" (NeurIPS 2016). Nothing of it is stored in a bundle.

Letters in shapes: b batch, c latent channels, h and w rows and columns of latents.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from bls.training.density import LIKELIHOOD_FLOOR
from bls.transforms.precision import has_bfloat16

GROUP_CHANNELS = 16
HIDDEN = 64
"""Features of the earlier groups."""
OWN_FEATURES, MIX_FEATURES = 8, 16
"""Features of each channel, from the contexts and before the mixture's parameters."""
ROWS, COLUMNS = 2, 2
"""Reach of the contexts within a group: rows above, columns to either side."""
NUM_PARAMETERS = 7
"""Of the mixture of a channel: three weights, two means, two logarithms of scales."""
NARROW = 0.35
"""Where the first logistic's scale starts, in standard deviations of its channel; the second starts at one."""
MIN_SCALE = 0.02


class ContextRate(nn.Module):
    """Probability of each symbol given those before it: two logistics and the density's own, mixed.

    All groups are computed at once, by filters that are masked where a group must not look.
    """

    earlier_mask: Tensor
    own_mask: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.num_groups = -(-channels // GROUP_CHANNELS)
        self.padding = self.num_groups * GROUP_CHANNELS - channels
        padded, hidden = channels + self.padding, HIDDEN * self.num_groups
        self.earlier = nn.Conv2d(2 * padded + 1, hidden, 3, padding=1)
        self.deeper = nn.Conv2d(hidden, hidden, 1, groups=self.num_groups)
        self.onto_channels = nn.Conv2d(hidden, padded * OWN_FEATURES, 1, groups=self.num_groups)
        own = (ROWS + 1, 2 * COLUMNS + 1)
        self.own = nn.Conv2d(2 * padded, padded * OWN_FEATURES, own, groups=self.num_groups)
        self.mix = nn.Conv2d(padded * OWN_FEATURES, padded * MIX_FEATURES, 1, groups=padded)
        self.out = nn.Conv2d(padded * MIX_FEATURES, padded * NUM_PARAMETERS, 1, groups=padded)
        self.register_buffer("earlier_mask", _earlier_groups(self.num_groups), persistent=False)
        self.register_buffer("own_mask", _own_past().repeat(self.num_groups, 1, 1, 1), persistent=False)
        with torch.no_grad():
            self.out.weight *= 0.1

    def forward(
        self,
        contexts: Float[Tensor, "b c h w"],
        v: Float[Tensor, "b c h w"],
        *,
        spread: Float[Tensor, "b c 1 1"],
        static: Float[Tensor, "b c h w"],
        quality: Float[Tensor, " b"],
    ) -> Float[Tensor, "b c h w"]:
        """Return the probability of an interval of width 1 around each `v`, at least `LIKELIHOOD_FLOOR`.

        `contexts` are the rounded latents that the decoder will know, `v` what stands for the symbols to be coded
        (rounded or with noise), `spread` their standard deviation, `static` their probability without contexts.
        `quality` is any number that grows with the quality, best from -1 to 1.
        """
        # Sign and size, about as their logarithms; both are smooth at zero, where most latents are.
        planes = torch.stack([contexts.asinh(), contexts.square().log1p() / 2], dim=2).flatten(1, 2)
        planes = F.pad(planes, (0, 0, 0, 0, 0, 2 * self.padding)).contiguous(memory_format=torch.channels_last)
        # Half precision is enough for a guess; probabilities are float32.
        with torch.autocast(v.device.type, torch.bfloat16, enabled=has_bfloat16(v.device)):
            mixture = self._mixture(planes, quality[:, None, None, None].expand(-1, 1, *v.shape[2:]))
        probability: Tensor = _mix(mixture[:, : v.shape[1]].float(), v, spread, static)
        return probability.clamp_min(LIKELIHOOD_FLOOR)

    def _mixture(
        self, planes: Float[Tensor, "b n h w"], quality: Float[Tensor, "b 1 h w"]
    ) -> Float[Tensor, "b k p h w"]:
        """Return the mixtures' parameters of all channels."""
        earlier = F.conv2d(
            torch.cat([planes, quality], dim=1), self.earlier.weight * self.earlier_mask, self.earlier.bias, padding=1
        )
        above = F.pad(planes, (COLUMNS, COLUMNS, ROWS, 0))
        own = F.conv2d(above, self.own.weight * self.own_mask, self.own.bias, groups=self.num_groups)
        features = own + self.onto_channels(F.gelu(self.deeper(F.gelu(earlier))))
        mixture: Tensor = self.out(F.gelu(self.mix(F.gelu(features))))
        return mixture.view(len(mixture), -1, NUM_PARAMETERS, *mixture.shape[2:])


def _earlier_groups(num_groups: int) -> Float[Tensor, "o i 1 1"]:
    """Return which planes each group's features may see: those of the groups before it, and the quality."""
    group = torch.arange(num_groups)
    sees = (group[:, None] > group).float()
    of_planes = sees.repeat_interleave(HIDDEN, 0).repeat_interleave(2 * GROUP_CHANNELS, 1)
    return F.pad(of_planes, (0, 1), value=1)[:, :, None, None]


def _own_past() -> Float[Tensor, "o i r k"]:
    """Return which places each channel of a group sees: rows above, to the left, and earlier channels at its own."""
    mask = torch.zeros(GROUP_CHANNELS, OWN_FEATURES, GROUP_CHANNELS, 2, ROWS + 1, 2 * COLUMNS + 1)
    mask[..., :ROWS, :] = 1
    mask[..., ROWS, :COLUMNS] = 1
    for channel in range(GROUP_CHANNELS):
        mask[channel, :, :channel, :, ROWS, COLUMNS] = 1
    return mask.flatten(2, 3).flatten(0, 1)


def _mix(
    mixture: Float[Tensor, "b g p h w"],
    v: Float[Tensor, "b g h w"],
    spread: Float[Tensor, "b g 1 1"],
    static: Float[Tensor, "b g h w"],
) -> Float[Tensor, "b g h w"]:
    narrow, wide, rest, *places = mixture.unbind(2)
    weights = torch.softmax(torch.stack([narrow, wide, rest - 1]), dim=0)
    means, log_scales, starts = places[:2], places[2:], (NARROW, 1.0)
    probability = weights[2] * static
    for weight, mean, log_scale, start in zip(weights, means, log_scales, starts, strict=False):
        scale = (start * spread * log_scale.clamp(-8, 8).exp()).clamp_min(MIN_SCALE)
        distance = v - mean * spread
        inside = torch.sigmoid((distance + 0.5) / scale) - torch.sigmoid((distance - 0.5) / scale)
        probability = probability + weight * inside
    return probability
