import numpy as np
import pytest

from bls.entropy.mixed.contexts import (
    MAX_ACTIVITY,
    MAX_IN_TOTAL,
    ROW_SIZE,
    SIGNS_ABOVE,
    TOTAL,
    add_to_total,
    set_contexts_of_above,
    sum_sources,
)
from bls.entropy.mixed.model import NUM_SIGNS, PLACES
from bls.entropy.tree import CONTEXT_OF_ACTIVITY, MARGIN

HEIGHT, WIDTH = 4, 5
SHAPE = HEIGHT + MARGIN + 1, WIDTH + 2 * MARGIN
INSIDE = slice(MARGIN, MARGIN + HEIGHT), slice(MARGIN, MARGIN + WIDTH)


def planes(rng: np.random.Generator, lowest: int, highest: int) -> np.ndarray:
    """Return two channels of random integers, with margins of zeros."""
    values = np.zeros((2, *SHAPE), np.int16)
    values[:, *INSIDE] = rng.integers(lowest, highest, size=(2, HEIGHT, WIDTH), endpoint=True)
    return values


def test_a_source_contributes_from_its_place() -> None:
    rng = np.random.default_rng(0)
    values = planes(rng, -255, 255)
    sources = np.repeat([[0], [1]], len(PLACES), axis=0).T.astype(np.int32)
    places = np.tile(np.arange(len(PLACES), dtype=np.int32), 2)[None]
    weights = rng.integers(-5000, 5000, size=sources.shape).astype(np.int32)
    sums = np.empty(SHAPE, np.int32)
    sum_sources(sums, values, (np.array([7], np.int32), weights, sources, places, weights), 0)
    expected = 7
    for source, place, weight in zip(sources[0], places[0], weights[0], strict=True):
        expected = expected + weight * np.roll(
            values[source].astype(np.int32), tuple(-d for d in PLACES[place]), (0, 1)
        )
    assert np.array_equal(sums[INSIDE], np.asarray(expected)[INSIDE])


@pytest.mark.parametrize("c", [0, 1, 2, 3, 100, 191, 1000])
def test_context_of_the_total_is_that_of_an_exact_division(c: int) -> None:
    rng = np.random.default_rng(c)
    total = np.zeros(SHAPE, np.int32)
    total[INSIDE] = rng.integers(0, c * MAX_IN_TOTAL // 6, size=(HEIGHT, WIDTH), endpoint=True)
    row, zeros, y = np.zeros((ROW_SIZE, SHAPE[1]), np.int32), np.zeros(SHAPE[1], np.int32), MARGIN + 1
    set_contexts_of_above(row, zeros.astype(np.int16), zeros, total, y, c)
    around = total[y - 1] + np.roll(total[y], 1) + 2 * total[y] + np.roll(total[y], -1) + total[y + 1]
    expected = CONTEXT_OF_ACTIVITY[np.minimum(8 * around // (c + 4) + 2, MAX_ACTIVITY)]
    assert np.array_equal(row[TOTAL][INSIDE[1]], expected[INSIDE[1]])


def test_signs_above_are_told_apart() -> None:
    found = set()
    for signs in np.ndindex(3, 3, 3):
        above = np.zeros(2 * MARGIN + 1, np.int16)
        above[MARGIN - 1 : MARGIN + 2] = 5 * (np.array(signs) - 1)
        row, zeros = np.zeros((ROW_SIZE, above.size), np.int32), np.zeros((3, above.size), np.int32)
        set_contexts_of_above(row, above, zeros[0], zeros, 1, 0)
        found.add(int(row[SIGNS_ABOVE, MARGIN]))
    assert found == set(range(NUM_SIGNS // 3))


def test_large_magnitudes_count_up_to_a_bound() -> None:
    total = np.ones((1, 3), np.int32)
    add_to_total(total, np.array([[0, MAX_IN_TOTAL - 1, 255]], np.uint8))
    assert total.tolist() == [[1, MAX_IN_TOTAL, MAX_IN_TOTAL + 1]]
