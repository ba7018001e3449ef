"""The gains of a network's range of qualities while they are learnt.

Letters in shapes: b batch, c latent channels, k points.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from bls.ladder import INDEX_STEPS, QualityRange, index_of, lmbda_of
from bls.transforms.gains import StoredGains

POINT_SPACING = 0.5
"""Largest distance, in qualities, between two points: a gain changes by a fifth from one to the next."""


class Gains(nn.Module):
    """Gains that are learnt; they start from the theory's values and never fall with quality."""

    points: Tensor
    theory: Tensor

    def __init__(self, channels: int, qualities: QualityRange) -> None:
        super().__init__()
        points = qualities.spread(POINT_SPACING)
        self.register_buffer("points", torch.tensor(points))
        # At high resolution the best step of a uniform quantiser is proportional to lmbda ** -1/2.
        theory = [[0.5 * np.log(lmbda_of(point) / lmbda_of(qualities.high))] for point in points[:-1]]
        self.register_buffer("theory", torch.tensor(theory, dtype=torch.float32).view(-1, 1), persistent=False)
        self.log_gain = nn.Parameter(self.theory.repeat(1, channels))

    def forward(self, quality: Float[Tensor, " b"]) -> Float[Tensor, "b c 1 1"]:
        """Return the gains of all channels at each quality."""
        log_gain = self._all_points()
        if len(self.points) == 1:
            return log_gain.exp().expand(len(quality), -1)[:, :, None, None]
        above = torch.searchsorted(self.points, quality.contiguous()).clamp(1, len(self.points) - 1)
        left, right = self.points[above - 1], self.points[above]
        part = ((quality - left) / (right - left))[:, None]
        return torch.lerp(log_gain[above - 1], log_gain[above], part).exp()[:, :, None, None]

    @torch.no_grad()
    def project(self, used: Bool[Tensor, " c"], *, slope: float = 1.0) -> None:
        """Make the gains rise with quality again after an optimiser step, and those of used channels as theory has it.

        That is on average: a channel may differ. Left alone, the gains at both ends of a range move inwards, where the
        transforms are good, and the range's lowest and highest rates are lost (docs/decisions/0013). A slope above 1
        draws the ends further apart than theory does, in the logarithm.
        """
        if used.any():
            self.log_gain.sub_((self.log_gain - slope * self.theory)[:, used].mean(1, keepdim=True))
        flipped, _ = self.log_gain.flip(0).clamp(max=0).cummin(0)
        self.log_gain.copy_(flipped.flip(0))

    @torch.no_grad()
    def load(self, stored: StoredGains) -> None:
        """Take over stored gains of the same range."""
        self.log_gain.copy_(torch.from_numpy(stored.log_gain[:-1] - stored.log_gain[-1:]))

    def stored(self) -> StoredGains:
        """Return the gains as a bundle stores them."""
        indices = [index_of(point) for point in self.points.tolist()]
        return StoredGains(np.array(indices, np.int32), self._all_points().detach().cpu().float().numpy())

    def _all_points(self) -> Float[Tensor, "k c"]:
        return torch.cat([self.log_gain, self.log_gain.new_zeros(1, self.log_gain.shape[1])])


def draw_qualities(qualities: QualityRange, count: int, rng: np.random.Generator) -> Float[Tensor, " b"]:
    """Return a quality for each patch of a batch, spread evenly over the range: one from each of its equal parts."""
    part = (np.arange(count) + rng.random(count)) / count
    low, high = index_of(qualities.low) / INDEX_STEPS, index_of(qualities.high) / INDEX_STEPS
    return torch.from_numpy(low + (high - low) * part).float()
