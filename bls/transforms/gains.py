"""How finely the latents are quantised at each quality: `symbols = round(y * gain)`, `y_hat = symbols / gain`.

One network serves a range of qualities by gains per latent channel. Their logarithms are piecewise linear in quality
between stored points; at the highest quality all are 1, so the unit of the latents is the quantiser's step there.
Gain units: Z. Cui et al., "Asymmetric Gained Deep Image Compression with Continuous Rate Adaptation", CVPR 2021.

Letters in shapes: b batch, c latent channels, k points.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int32

from bls.entropy.arrays import StoredArrays

MAX_LOG_GAIN = 16.0


@dataclass(frozen=True)
class StoredGains(StoredArrays):
    """The gains as a bundle stores them.

    Raises:
        ValueError: the arrays do not belong together or are out of range.
    """

    stored_name = "gains"

    indices: Int32[np.ndarray, " k"]
    """Quality indices of the points, ascending."""
    log_gain: Float32[np.ndarray, "k c"]

    def __post_init__(self) -> None:
        k, c = self.indices.size, self.log_gain.shape[-1]
        self.check_shapes({"indices": ((k,), np.int32), "log_gain": ((k, c), np.float32)})
        if not k or not c or (np.diff(self.indices) <= 0).any():
            raise ValueError(
                f"gains stand at {self.indices.tolist()}, expected ascending indices: write the bundle again"
            )
        if not (np.abs(self.log_gain) <= MAX_LOG_GAIN).all():
            raise ValueError(f"gains have logarithms beyond {MAX_LOG_GAIN}: write the bundle again")

    @property
    def channels(self) -> int:
        """Number of channels."""
        return int(self.log_gain.shape[1])

    def at(self, index: int) -> Float32[np.ndarray, " c"]:
        """Return the gains at a quality's index, which lies between the first point and the last."""
        assert self.indices[0] <= index <= self.indices[-1]
        above = int(np.searchsorted(self.indices, index))
        log_gain = self.log_gain[above].astype(np.float64)
        if index < self.indices[above]:
            left, right = self.indices[above - 1 : above + 1].tolist()
            log_gain -= (right - index) / (right - left) * (log_gain - self.log_gain[above - 1])
        gain: np.ndarray = np.exp(log_gain).astype(np.float32)
        return gain
