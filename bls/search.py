"""Search for the quality at which a measure of an image crosses a value, in few tries.

A network's measure rises smoothly with quality, so a step along its slope (Newton's, with the slope of a secant) lands
close. Between two networks it may jump: once both sides of the value are known, a step ends where its network does.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

MAX_TRIES = 20
_MAX_STEPS = 8  # then the rest is halved at each try, which ends within eleven
_SLOPE_RANGE = 4.0  # a measured slope is between a fourth of the usual one and four times as much, or it is noise


@dataclass(frozen=True)
class Crossing:
    """Where a measure crosses a value: the index that is close enough, or the neighbours on both sides.

    `below` is None where all indices exceed the value, `above` where all fall short of it.
    """

    close: int | None = None
    below: int | None = None
    above: int | None = None


def find_crossing(
    excess: Callable[[int], float], networks: Sequence[range], *, first: int, slope: float, window: tuple[float, float]
) -> Crossing:
    """Return where `excess` is in a window, or between which indices it passes it.

    `networks` hold the indices of each network, in order. The search begins at `first`; `slope` is the usual rise of
    `excess` from one index to the next.
    """
    return _Search(networks, slope, sum(window) / 2).run(excess, first, window)


class _Search:
    """Places are positions in the list of all indices, which has no gaps."""

    def __init__(self, networks: Sequence[range], slope: float, aim: float) -> None:
        self._indices = [index for network in networks for index in network]
        self._networks = networks
        self._slope = slope
        self._aim = aim
        self._values: dict[int, float] = {}  # by place
        self._below, self._above = -1, len(self._indices)

    def run(self, excess: Callable[[int], float], first: int, window: tuple[float, float]) -> Crossing:
        place = min(bisect_left(self._indices, first), len(self._indices) - 1)
        for number in range(1, MAX_TRIES + 1):
            value = self._values[place] = excess(self._indices[place])
            if value < window[0]:
                self._below = place
            elif value > window[1]:
                self._above = place
            else:
                return Crossing(close=self._indices[place])
            if self._above - self._below <= 1:
                break
            place = self._next(place) if number < _MAX_STEPS else (self._below + self._above) // 2
        is_open_below, is_open_above = self._below < 0, self._above == len(self._indices)
        return Crossing(
            below=None if is_open_below else self._indices[self._below],
            above=None if is_open_above else self._indices[self._above],
        )

    def _next(self, place: int) -> int:
        low, high = self._below + 1, self._above - 1
        if low == 0 or self._above == len(self._indices):
            return min(max(self._step(place), low), high)
        for end in (place, self._below + self._above - place):
            network = self._network(end)
            first, last = (bisect_left(self._indices, index) for index in (network[0], network[-1]))
            if low <= (step := min(max(self._step(end), first), last)) <= high:
                return step
        return (low + high) // 2

    def _step(self, place: int) -> int:
        """Return the place at which the measure is as it should be, by the slope at a place."""
        index = self._indices[place]
        wanted = round(index + (self._aim - self._values[place]) / self._slope_at(place))
        step = min(bisect_left(self._indices, wanted), len(self._indices) - 1)
        return step if step != place else place + (1 if self._values[place] < self._aim else -1)

    def _slope_at(self, place: int) -> float:
        """Return the slope towards the nearest place of the same network that was tried."""
        network = self._network(place)
        others = [other for other in self._values if other != place and self._indices[other] in network]
        if not others:
            return self._slope
        nearest = min(others, key=lambda other: abs(other - place))
        rise = self._values[place] - self._values[nearest]
        slope = rise / (self._indices[place] - self._indices[nearest])
        return min(max(slope, self._slope / _SLOPE_RANGE), self._slope * _SLOPE_RANGE)

    def _network(self, place: int) -> range:
        return next(network for network in self._networks if self._indices[place] in network)
