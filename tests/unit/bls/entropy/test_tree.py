import numpy as np
import pytest

from bls.entropy.table import ProbabilityTable
from bls.entropy.tree import (
    ACTIVITY_FRACTION_BITS,
    CHAIN_GROUPS,
    CONTEXT_OF_ACTIVITY,
    CONTEXT_STARTS,
    FURTHER_DECISION,
    IS_FURTHER,
    IS_MODE_NOT,
    IS_SMALLER,
    MAX_CHAIN,
    NUM_CONTEXTS,
    NUM_DECISIONS,
    chain_lengths,
    decision_probabilities,
)


def laplacian(*, mean: float, scale: float, radius: int) -> ProbabilityTable:
    integers = np.arange(-radius, radius + 1)
    return ProbabilityTable.from_probabilities(np.exp(-np.abs(integers - mean) / scale)[None], -radius)


def test_decisions_of_the_chain_cover_its_distances_in_order() -> None:
    assert len(FURTHER_DECISION) == MAX_CHAIN + 1
    chain = FURTHER_DECISION[1:]
    assert chain[0] == IS_FURTHER and chain[-1] == NUM_DECISIONS - 1
    assert set(np.diff(chain.astype(int))) == {0, 1}
    assert (1 + np.flatnonzero(np.diff(chain, prepend=IS_FURTHER - 1))).tolist() == list(CHAIN_GROUPS)


def test_contexts_are_half_octaves_of_activity() -> None:
    assert len(CONTEXT_OF_ACTIVITY) == 1024
    assert (1 + np.flatnonzero(np.diff(CONTEXT_OF_ACTIVITY.astype(int)))).tolist() == list(CONTEXT_STARTS)
    assert CONTEXT_OF_ACTIVITY[0] == 0 and CONTEXT_OF_ACTIVITY[-1] == NUM_CONTEXTS - 1
    assert tuple(round(4 * 2 ** (k / 2)) for k in range(1, NUM_CONTEXTS)) == CONTEXT_STARTS
    assert ACTIVITY_FRACTION_BITS == 8


@pytest.mark.parametrize(
    ("frequencies", "expected"),
    [
        ([65535, 1], (0, 0)),
        ([65000, 300, 235, 1], (0, 2)),
        ([100, 200, 65235, 1], (2, 0)),
        ([1] * 300 + [64735] + [1] * 500 + [1], (MAX_CHAIN, MAX_CHAIN)),
    ],
)
def test_chains_reach_the_ends_of_the_table(frequencies: list[int], expected: tuple[int, int]) -> None:
    table = ProbabilityTable(
        np.array([-5], np.int32), np.array([len(frequencies) - 1], np.int32), np.array(frequencies, np.uint32)
    )
    below, above = chain_lengths(table)
    assert (below[0], above[0]) == expected


def count_by_walking(offsets: np.ndarray, *, below: int, above: int) -> np.ndarray:
    """Return how often each decision was answered (no, yes) for symbols at these offsets from the mode."""
    counts = np.zeros((NUM_DECISIONS, 2), np.int64)
    for offset, n in zip(*np.unique(offsets, return_counts=True), strict=True):
        counts[IS_MODE_NOT, int(offset != 0)] += n
        if offset == 0:
            continue
        counts[IS_SMALLER, int(offset < 0)] += n
        for distance in range(1, (below if offset < 0 else above) + 1):
            counts[FURTHER_DECISION[distance], int(abs(offset) > distance)] += n
            if distance == abs(offset):
                break
    return counts


@pytest.mark.parametrize(("mean", "scale", "radius"), [(0, 0.4, 8), (0.3, 2.0, 40), (-2.4, 9.0, 150), (1.0, 60.0, 700)])
def test_probabilities_are_those_of_drawn_symbols(mean: float, scale: float, radius: int) -> None:
    table = laplacian(mean=mean, scale=scale, radius=radius)
    below, above = (int(length[0]) for length in chain_lengths(table))
    rng = np.random.default_rng(0)
    drawn = rng.choice(int(table.num_symbols[0]), size=300_000, p=table.channel(0)[:-1] / table.channel(0)[:-1].sum())
    counts = count_by_walking(drawn + table.minimum[0] - table.mode[0], below=below, above=above)
    probabilities = decision_probabilities(table)[0]
    totals = counts.sum(1)
    assert totals[IS_FURTHER] > 5000
    for decision in np.flatnonzero(totals > 3000):
        deviation = np.sqrt(probabilities[decision] * (1 - probabilities[decision]) / totals[decision])
        # The shorter side ends without its last answers, and counts are smoothed by one half: allow a thousandth.
        measured = counts[decision, 1] / totals[decision]
        assert abs(measured - probabilities[decision]) < 5 * deviation + 0.001


def test_probabilities_of_what_never_occurs_are_even() -> None:
    table = ProbabilityTable(np.zeros(1, np.int32), np.ones(1, np.int32), np.array([65535, 1], np.uint32))
    probabilities = decision_probabilities(table)[0]
    assert probabilities[IS_MODE_NOT] == 1 / 65536
    assert probabilities[IS_SMALLER] == 0.5
    assert (probabilities > 0).all() and (probabilities < 1).all()
