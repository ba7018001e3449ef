"""The density of the noisy latents: piecewise linear, one function per channel, fitted like a histogram.

Ballé, Laparra, Simoncelli (ICLR 2017), section 4 and appendix: 10 samples per unit, fitted on the expected
log-likelihood by an optimiser of its own, renormalised every step. Here the maximum of that likelihood is tracked in
closed form: a running histogram of the latents, convolved with the box that the uniform noise adds
(docs/decisions/0003-density.md).

Letters in shapes: b batch, c channels, h and w rows and columns of latents, k nodes.
"""

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from bls.training.parallel import max_over_processes, sum_over_processes

SAMPLES_PER_UNIT = 10
LIKELIHOOD_FLOOR = 2.0**-16
"""The smallest probability that an integer table can hold; what lies outside the support is charged this much."""
MAX_HALF_RANGE = 4096
"""Latents beyond are counted at this value: bounds the memory of a diverging fit."""


class Density(nn.Module):
    """Piecewise-linear density of `y_tilde = y + U(-1/2, 1/2)` per channel, on [-half_range, half_range]."""

    histogram: Tensor
    samples: Tensor
    num_updates: Tensor

    def __init__(self, channels: int, *, half_range: int = 16, momentum: float = 0.98) -> None:
        super().__init__()
        self.momentum = momentum
        num_nodes = 2 * half_range * SAMPLES_PER_UNIT + 1
        self.register_buffer("histogram", torch.zeros(channels, num_nodes))
        self.register_buffer("samples", torch.full((channels, num_nodes), 0.5 / half_range))
        self.register_buffer("num_updates", torch.zeros((), dtype=torch.int64))

    @property
    def half_range(self) -> int:
        """The support's upper end, an integer: nodes lie at multiples of 1/10 from -half_range to half_range."""
        return (self.samples.shape[1] - 1) // (2 * SAMPLES_PER_UNIT)

    def forward(self, y: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return the density at every latent, at least `LIKELIHOOD_FLOOR`; differentiable in y, not in the samples."""
        channel, node, fraction = self._locate(y)
        left = self.samples[channel, node]
        right = self.samples[channel, node + 1]
        return (left + fraction * (right - left)).clamp_min(LIKELIHOOD_FLOOR)

    def bits(self, y: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return `-log2` of the density: at integers the ideal code length, at noisy latents its relaxation."""
        density: Tensor = self(y.float())
        return -density.log2()

    @torch.no_grad()
    def update(self, y: Float[Tensor, "b c h w"], *, of_all_processes: bool = False) -> None:
        """Move the density towards the latents (without noise) of one batch, or of all processes' parts of it.

        An exponential moving average of `momentum`; a plain average of all batches so far while there are fewer, or
        for ever where momentum is 1.
        """
        y = y.detach().float().clamp(-MAX_HALF_RANGE + 2, MAX_HALF_RANGE - 2)
        half_range = int(y.abs().amax().ceil()) + 1
        self._cover(max_over_processes(half_range, y.device) if of_all_processes else half_range)
        channel, node, fraction = self._locate(y)
        counts = torch.zeros_like(self.histogram)
        counts.index_put_((channel, node), 1 - fraction, accumulate=True)
        counts.index_put_((channel, node + 1), fraction, accumulate=True)
        if of_all_processes:
            sum_over_processes(counts)
        counts *= SAMPLES_PER_UNIT / counts.sum(1, keepdim=True)  # each row now integrates to 1
        self.num_updates += 1
        self.histogram.lerp_(counts, max(1 - self.momentum, 1 / self.num_updates.item()))
        self.samples.copy_(_add_box(self.histogram))

    @torch.no_grad()
    def reset(self) -> None:
        """Forget all latents seen: the next update starts a new average."""
        self.num_updates.zero_()

    @torch.no_grad()
    def probabilities(self) -> tuple[Float64[Tensor, "c k"], int]:
        """Return the probabilities of the integers from `minimum` on, and `minimum`: the density's samples there."""
        at_integers = self.samples[:, ::SAMPLES_PER_UNIT].double()
        return at_integers / at_integers.sum(1, keepdim=True), -self.half_range

    def _locate(self, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return channel, index of the node at or below, and the fraction of the way to the next, of every latent."""
        limit = self.half_range - 1e-3
        position = (y.clamp(-limit, limit) + self.half_range) * SAMPLES_PER_UNIT
        node = position.detach().nan_to_num().long()  # latents of a diverged fit: the loss says so
        channel = torch.arange(y.shape[1], device=y.device)[:, None, None].expand_as(y)
        return channel, node, position - node

    def _cover(self, half_range: int) -> None:
        """Widen the support to at least `half_range`; it grows by doubling, so that this is rare."""
        while self.half_range < half_range:
            extra = self.half_range * SAMPLES_PER_UNIT
            for name in ("histogram", "samples"):
                setattr(self, name, nn.functional.pad(getattr(self, name), (extra, extra)))

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: object) -> None:
        """Take on the support of the state that is loaded."""
        for name in ("histogram", "samples"):
            if prefix + name in state_dict:
                setattr(self, name, torch.zeros_like(state_dict[prefix + name], device=self.samples.device))
        super()._load_from_state_dict(state_dict, prefix, *args)


def _add_box(density: Float[Tensor, "c k"]) -> Float[Tensor, "c k"]:
    """Convolve samples with the density of U(-1/2, 1/2): trapezoidal weights, so the integral stays exact."""
    box = density.new_full((1, 1, SAMPLES_PER_UNIT + 1), 1 / SAMPLES_PER_UNIT)
    box[..., 0] /= 2
    box[..., -1] /= 2
    return nn.functional.conv1d(density[:, None], box, padding=SAMPLES_PER_UNIT // 2)[:, 0]
