"""The busiest window of an image: for the crops that reports and panels show."""

import numpy as np
import numpy.typing as npt


def best_window(weights: npt.NDArray[np.floating], height: int, width: int, *, step: int = 1) -> tuple[int, int]:
    """Return top and left of the window with the largest sum of weights, of those at multiples of `step`."""
    sums = np.pad(weights, ((1, 0), (1, 0))).cumsum(0, dtype=np.float64).cumsum(1)
    windows = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    tried = windows[::step, ::step]
    top, left = np.unravel_index(int(tried.argmax()), tried.shape)
    return int(top) * step, int(left) * step
