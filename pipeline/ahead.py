"""Work done in threads before its result is asked for, in order and within bounds."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

_FORGETTING = 0.9

_T = TypeVar("_T")
_R = TypeVar("_R")


class ExpectedCost:
    """What the next item is taken to cost where nobody knows before it is done: as much as the largest of late.

    Before the first one is known this is `at_first`: as much as may be, so that one is done at a time.
    """

    def __init__(self, at_first: int) -> None:
        self.value = at_first
        self._is_known = False

    def saw(self, cost: int) -> None:
        """Learn from an item; what is larger is forgotten slowly."""
        self.value = max(cost, int(_FORGETTING * self.value)) if self._is_known else cost
        self._is_known = True


def ahead(
    executor: Executor,
    function: Callable[[_T], _R],
    items: Iterable[_T],
    *,
    window: int,
    cost: Callable[[_T], int] = lambda _: 0,
    max_cost: int = 0,
) -> Iterator[_R]:
    """Apply a function in an executor's threads, in order, to items that nobody asked for yet.

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
