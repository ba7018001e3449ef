import numpy as np
import pytest

from pipeline.windows import best_window


@pytest.mark.parametrize(("height", "width"), [(1, 1), (4, 7), (20, 30)])
def test_the_best_window_is_that_of_a_slow_search(height: int, width: int) -> None:
    weights = np.random.default_rng(0).random((20, 30))
    sums = {
        (top, left): weights[top : top + height, left : left + width].sum()
        for top in range(21 - height)
        for left in range(31 - width)
    }
    assert best_window(weights, height, width) == max(sums, key=sums.__getitem__)


def test_only_multiples_of_the_step_are_tried() -> None:
    weights = np.zeros((10, 10))
    weights[5, 8] = 1
    assert best_window(weights, 2, 2, step=4) == (4, 8)
