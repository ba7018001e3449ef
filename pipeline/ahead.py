"""Work done in threads before its result is asked for, in order and within bounds."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

_FORGETTING = 0.9

_T = TypeVar("_T")
_R = TypeVar("_R")


class ExpectedCost:
    """Estimate the cost of the next item when it is unknown in advance: the largest recent cost.

    The first item is assumed to cost `at_first`, the most that may be, so that it is done alone. After n items at most
    n + 1 are under way, as a small one may come before many large ones.
    """

    def __init__(self, at_first: int) -> None:
        self._at_first = at_first
        self._num_seen = 0
        self._largest = 0

    @property
    def value(self) -> int:
        """The estimated cost of the next item."""
        return max(self._largest, self._at_first // (self._num_seen + 1))

    def saw(self, cost: int) -> None:
        """Learn from an item; larger costs are forgotten slowly."""
        self._largest = max(cost, int(_FORGETTING * self._largest))
        self._num_seen += 1


def ahead(
    executor: Executor,
    function: Callable[[_T], _R],
    items: Iterable[_T],
    *,
    window: int,
    cost: Callable[[_T], int] = lambda _: 0,
    max_cost: int = 0,
) -> Iterator[_R]:
    """Apply a function in an executor's threads, in order, to items before they are asked for.

    These are at most `window`, and of a cost together of at most `max_cost`: a single one that costs more is worked on
    when it is asked for.
    """
    pending: deque[tuple[int, Future[_R]]] = deque()
    total = 0
    try:
        for item in items:
            pending.append((cost(item), executor.submit(function, item)))
            total += pending[-1][0]
            while len(pending) > window or total > max_cost:
                total -= pending[0][0]
                yield pending.popleft()[1].result()
        while pending:
            yield pending.popleft()[1].result()
    finally:
        for _, future in pending:
            future.cancel()
