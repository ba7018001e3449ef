import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from bls.search import MAX_TRIES, Crossing, find_crossing

ONE = [range(256, 2049)]
THREE = [range(256, 900), range(900, 1500), range(1500, 2049)]
SINGLE = [range(256 * quality, 256 * quality + 1) for quality in range(1, 9)]
WIDTH = 0.02


def psnr_db(index: int, networks: Sequence[range], jump: float) -> float:
    """Return a curve such as that of a photograph, which jumps from network to network."""
    quality = index / 256
    number = next(number for number, network in enumerate(networks) if index in network)
    return 25 + 1.9 * (quality - 1) - 0.03 * (quality - 4) ** 2 + jump * number


def search(networks: Sequence[range], jump: float, target: float) -> tuple[Crossing, int]:
    tried: list[int] = []

    def excess(index: int) -> float:
        tried.append(index)
        return psnr_db(index, networks, jump) - target

    found = find_crossing(excess, networks, first=1024, slope=1.5 / 256, window=(0, WIDTH))
    assert len(set(tried)) == len(tried)
    return found, len(tried)


@pytest.mark.parametrize("jump", [0, 0.3, 1.5])
@pytest.mark.parametrize("networks", [ONE, THREE, SINGLE])
def test_a_target_is_met_closely_or_lies_between_neighbours(networks: Sequence[range], jump: float) -> None:
    indices = list(itertools.chain.from_iterable(networks))
    for target in np.linspace(24, 42, 100):
        found, _ = search(networks, jump, target)
        if found.close is not None:
            assert 0 <= psnr_db(found.close, networks, jump) - target <= WIDTH
            continue
        below = -1 if found.below is None else indices.index(found.below)
        above = len(indices) if found.above is None else indices.index(found.above)
        assert above == below + 1
        assert found.below is None or psnr_db(found.below, networks, jump) < target
        assert found.above is None or psnr_db(found.above, networks, jump) > target + WIDTH


@pytest.mark.parametrize(("networks", "jump", "most"), [(ONE, 0, 4), (THREE, 0, 6), (THREE, 0.3, 6), (THREE, 1.5, 7)])
def test_few_tries_are_enough(networks: Sequence[range], jump: float, most: int) -> None:
    assert max(search(networks, jump, target)[1] for target in np.linspace(26, 36, 100)) <= most


def test_a_noisy_or_flat_curve_ends_too() -> None:
    noise = np.random.default_rng(0).normal(0, 0.5, 2049)
    for curve in (
        lambda index: float(noise[index]),
        lambda index: float(index > 1400),
        lambda index: (index - 700) ** 3,
    ):
        tried: list[int] = []

        def excess(index: int, curve: Callable[[int], float] = curve, tried: list[int] = tried) -> float:
            tried.append(index)
            return curve(index) - 0.5

        found = find_crossing(excess, ONE, first=1024, slope=1.5 / 256, window=(0, WIDTH))
        assert len(tried) <= MAX_TRIES
        assert found.close is not None or found.above is None or found.below in (None, found.above - 1)
