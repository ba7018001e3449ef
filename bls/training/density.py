"""The density of the latents: piecewise linear, one function per channel, fitted like a histogram.

Ballé, Laparra, Simoncelli (ICLR 2017), section 4 and appendix: 10 samples per unit, fitted on the expected
log-likelihood by an optimiser of its own, renormalised every step. The paper fits the density of the latents with
noise; here it is that of the latents themselves, and the noise is added in closed form: under a gain g the probability
of a symbol is the integral over an interval of width 1 / g, so one density serves all gains. The maximum of the
likelihood is tracked in closed form too, as a running histogram (docs/decisions/0003-density.md).

Letters in shapes: b batch, c channels, h and w rows and columns of latents, k nodes or integers.
"""

import math

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from bls.training.parallel import max_over_processes, sum_over_processes

SAMPLES_PER_UNIT = 10
LIKELIHOOD_FLOOR = 2.0**-16
"""The smallest probability that an integer table can hold; symbols outside the support get it too."""
MAX_HALF_RANGE = 4096
"""Latents beyond are counted at this value: bounds the memory of a diverging fit."""


class Density(nn.Module):
    """Piecewise-linear density of the latents `y` per channel, on [-half_range, half_range]."""

    histogram: Tensor
    cumulative: Tensor
    num_updates: Tensor

    def __init__(self, channels: int, *, half_range: int = 16, momentum: float = 0.98) -> None:
        super().__init__()
        self.momentum = momentum
        num_nodes = 2 * half_range * SAMPLES_PER_UNIT + 1
        self.register_buffer("histogram", torch.full((channels, num_nodes), 0.5 / half_range))
        self.register_buffer("cumulative", _integrate(self.histogram))
        self.register_buffer("num_updates", torch.zeros((), dtype=torch.int64))

    @property
    def half_range(self) -> int:
        """The support's upper end, an integer: nodes lie at multiples of 1/10 from -half_range to half_range."""
        return (self.histogram.shape[1] - 1) // (2 * SAMPLES_PER_UNIT)

    def forward(
        self, v: Float[Tensor, "b c h w"], gain: Float[Tensor, "#b c 1 1"] | None = None
    ) -> Float[Tensor, "b c h w"]:
        """Return the probability of an interval of width 1 around `v = y * gain`, at least `LIKELIHOOD_FLOOR`.

        At integers it is the probability of the symbol, at `v + U(-1/2, 1/2)` the density of that. Differentiable in
        `v` and the gain, not in the histogram.
        """
        low, high = v - 0.5, v + 0.5
        if gain is not None:
            low, high = low / gain, high / gain
        return (self._integral(high) - self._integral(low)).clamp_min(LIKELIHOOD_FLOOR)

    def bits(
        self, v: Float[Tensor, "b c h w"], gain: Float[Tensor, "#b c 1 1"] | None = None
    ) -> Float[Tensor, "b c h w"]:
        """Return `-log2` of that: at integers the ideal code length, at noisy latents its relaxation."""
        probability: Tensor = self(v.float(), gain)
        return -probability.log2()

    @torch.no_grad()
    def update(self, y: Float[Tensor, "b c h w"], *, of_all_processes: bool = False) -> None:
        """Move the density towards the latents (without gain and noise) of one batch, or of all processes' parts of it.

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
        self.cumulative.copy_(_integrate(self.histogram))

    @torch.no_grad()
    def probabilities(self, gain: Float[Tensor, " c"] | None = None) -> tuple[Float64[Tensor, "c k"], int]:
        """Return the probabilities of the integers from `minimum` on under a gain, and `minimum`."""
        gain = self.histogram.new_ones(len(self.histogram)) if gain is None else gain
        reach = math.ceil(self.half_range * gain.max().item()) + 1
        edges = torch.arange(-reach, reach + 2, device=gain.device).double() - 0.5
        places = (edges / gain.double()[:, None])[None, :, None, :]
        below = self._integral(places)[0, :, 0]
        p = below.diff(dim=1).clamp_min(0)
        return p / p.sum(1, keepdim=True), -reach

    @torch.no_grad()
    def spread(self) -> Float[Tensor, " c"]:
        """Return the root mean square of the latents of each channel, at least a hundredth."""
        nodes = torch.linspace(-self.half_range, self.half_range, self.histogram.shape[1], device=self.histogram.device)
        return (self.histogram @ nodes.square() / SAMPLES_PER_UNIT).sqrt().clamp_min(0.01)

    def _integral(self, y: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return the density's integral up to each place."""
        channel, node, fraction = self._locate(y)
        left, right = self.histogram[channel, node], self.histogram[channel, node + 1]
        return self.cumulative[channel, node] + fraction * (left + fraction * (right - left) / 2) / SAMPLES_PER_UNIT

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
            self.histogram = nn.functional.pad(self.histogram, (extra, extra))
            self.cumulative = _integrate(self.histogram)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: object) -> None:
        """Take over the support of a state before it is loaded."""
        for name in ("histogram", "cumulative"):
            if prefix + name in state_dict:
                setattr(self, name, torch.zeros_like(state_dict[prefix + name], device=self.histogram.device))
        super()._load_from_state_dict(state_dict, prefix, *args)


def _integrate(density: Float[Tensor, "c k"]) -> Float[Tensor, "c k"]:
    """Return the integral up to each node: that of straight lines between the samples."""
    cells = (density[:, 1:].double() + density[:, :-1]) / (2 * SAMPLES_PER_UNIT)
    return nn.functional.pad(cells.cumsum(1), (1, 0)).float()
