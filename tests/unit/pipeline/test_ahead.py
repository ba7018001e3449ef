import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.ahead import ExpectedCost, ahead


def test_ahead_keeps_the_order_and_its_window() -> None:
    started, asked = 0, 0
    lock = threading.Lock()
    excess = []

    def items() -> Iterator[int]:
        nonlocal started
        for index in range(50):
            with lock:
                started += 1
                excess.append(started - asked)
            yield index

    def work(index: int) -> int:
        time.sleep(0.001 * (index % 3))
        return index

    with ThreadPoolExecutor(4) as executor:
        results = []
        for result in ahead(executor, work, items(), window=5):
            results.append(result)
            with lock:
                asked += 1
    assert results == list(range(50))
    assert max(excess) == 6  # the window and the one that is asked for


@given(st.lists(st.integers(0, 50)), st.integers(0, 6), st.integers(0, 40))
def test_what_waits_costs_no_more_than_is_allowed(costs: list[int], window: int, max_cost: int) -> None:
    waiting: list[int] = []

    def items() -> Iterator[int]:
        for cost in costs:
            assert len(waiting) <= window and sum(waiting) <= max_cost
            waiting.append(cost)
            yield cost

    with ThreadPoolExecutor(2) as executor:
        for result in ahead(executor, lambda cost: cost, items(), window=window, cost=lambda c: c, max_cost=max_cost):
            assert result == waiting.pop(0)
    assert not waiting


def test_ahead_works_while_the_caller_does() -> None:
    begun = threading.Event()
    with ThreadPoolExecutor(1) as executor:
        results = ahead(executor, lambda index: begun.set() if index == 1 else None, iter(range(3)), window=2)
        next(results)
        assert begun.wait(5)


def test_ahead_passes_errors_on() -> None:
    with ThreadPoolExecutor(1) as executor, pytest.raises(ZeroDivisionError):
        list(ahead(executor, lambda x: 1 // x, [1, 0, 1], window=2))


def test_what_is_not_known_is_taken_for_the_largest_of_late() -> None:
    expected = ExpectedCost(1_000)
    values = [expected.value]
    for cost in (900, 10, 100, 950, 0, 0):
        expected.saw(cost)
        values.append(expected.value)
    assert values == [1_000, 900, 810, 729, 950, 855, 769]


def test_as_many_are_begun_as_are_known_at_first() -> None:
    expected = ExpectedCost(1_000)
    at_once = []
    for _ in range(20):
        at_once.append(1_000 // expected.value)
        expected.saw(20)
    assert at_once == [*range(1, 21)]
    expected.saw(500)
    assert 1_000 // expected.value == 2
