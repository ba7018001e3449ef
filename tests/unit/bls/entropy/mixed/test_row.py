import numpy as np
import pytest

from bls.entropy.mixed.logits import LOGIT_UNITS, NUM_RATES
from bls.entropy.mixed.model import NUM_INPUTS, NUM_MODELS, NUM_SLOTS
from bls.entropy.mixed.row import MAX_VALUE, _adapted, _mixed, _slot


def state_of(probability: float, count: int = 0) -> np.uint64:
    return np.uint64(round(probability * 2**31) << 32 | count)


def estimate_of(state: np.uint64) -> float:
    return int(state) / 2**63


def test_a_state_estimates_the_share_of_yes() -> None:
    """The rate 1 / (n + 1.5) makes (yes + 1/4) / (n + 1/2) of an even start."""
    state, num_yes = state_of(0.5), 0
    for n, yes in enumerate(np.random.default_rng(0).random(200) < 0.2, start=1):
        state, num_yes = _adapted(np.uint64(state), yes), num_yes + yes
        assert abs(estimate_of(state) - (num_yes + 0.25) / (n + 0.5)) < 1e-3
        assert int(state) & 0xFFFF_FFFF == n


@pytest.mark.parametrize("yes", [True, False])
def test_a_state_that_always_has_the_same_answer_stays_a_probability(yes: bool) -> None:
    state = state_of(0.5)
    for _ in range(20_000):
        state = _adapted(np.uint64(state), yes)
    assert int(state) & 0xFFFF_FFFF == NUM_RATES - 1
    assert 0 < estimate_of(state) < 1
    assert abs(estimate_of(state) - yes) < 1e-3


def test_each_kind_of_decision_has_slots_of_its_own() -> None:
    values = range(-MAX_VALUE, MAX_VALUE + 1)
    kinds = [
        {int(_slot(np.int64(magnitude), is_smaller, np.int64(value))) for value in values for is_smaller in sides}
        for magnitude, sides in [(-1, (False,)), (0, (False,)), (1, (False, True)), (2, (False, True))]
    ]
    assert sorted(slot for kind in kinds for slot in kind) == list(range(NUM_SLOTS))


def test_the_mixed_logit_is_the_weighted_sum_of_the_models_logits() -> None:
    probabilities = np.array([0.02, 0.3, 0.5, 0.6, 0.9, 0.97])
    states = np.array([state_of(p) for p in probabilities], np.uint64)
    weights = np.array([0.5, 0.25, 1.0, -0.5, 0.75, 0.125, 0.0625])
    inputs = np.full(NUM_INPUTS, LOGIT_UNITS, np.int64)
    indices = np.arange(NUM_MODELS, dtype=np.uint64)
    mixed = _mixed(states, indices, (weights * 65536).astype(np.int64), np.int64(0), inputs)
    logits = np.log(probabilities / (1 - probabilities))
    assert np.allclose(inputs[:NUM_MODELS] / LOGIT_UNITS, logits, atol=0.02)
    assert abs(mixed / 65536 - 1 / (1 + np.exp(-(weights[:-1] @ logits + weights[-1])))) < 0.005
