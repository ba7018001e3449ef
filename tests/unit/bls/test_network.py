"""Networks: parts that belong together, and fingerprints of what decodes."""

from dataclasses import replace

import numpy as np
import pytest

from tests.bundles import small_network


def test_fingerprints_follow_the_content() -> None:
    assert small_network(4).fingerprint == small_network(4).fingerprint
    assert small_network(4).fingerprint != small_network(4, seed=1).fingerprint
    assert len(small_network(4).fingerprint) == 8


def test_coders_of_other_channels_are_refused() -> None:
    network, other = small_network(4), small_network(4, num_filters=6)
    with pytest.raises(ValueError, match="has 12 latents, its gains and coders are for 6, 12"):
        replace(network, states=other.states)
    with pytest.raises(ValueError, match="expected the same of each"):
        replace(network.states[0], mixed=other.states[0].mixed)


def test_the_fingerprint_is_of_what_decodes() -> None:
    network = small_network(3, 5)
    analysis = {name: value * np.float16(0.5) for name, value in network.weights.analysis.items()}
    upgraded = replace(network, weights=replace(network.weights, analysis=analysis))
    assert upgraded.fingerprint == network.fingerprint
    assert upgraded.analysis_fingerprint != network.analysis_fingerprint
    finer = replace(network.gains, log_gain=network.gains.log_gain * np.float32(0.9))
    assert replace(network, gains=finer).fingerprint != network.fingerprint
    assert replace(network, states=network.states[:1]).fingerprint != network.fingerprint


@pytest.mark.parametrize("other", [{"num_filters": 6}, {"channels": 1}])
def test_thumbnails_of_another_network_are_refused(other: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="are of another network: fit them again"):
        replace(small_network(4), thumbnails=small_network(4, **other).thumbnails)


def test_the_nearest_states_are_taken_and_of_two_the_lower() -> None:
    network = small_network(3, 5)
    assert [states.index for states in network.states] == [832, 960, 1088, 1216]
    assert [network.states_at(index).index for index in (768, 896, 897, 1280)] == [832, 832, 960, 1216]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(value: float) -> None:
    network = small_network(4)
    synthesis = {name: array.copy() for name, array in network.weights.synthesis.items()}
    synthesis["0.weight"].flat[3] = value
    with pytest.raises(ValueError, match=r"synthesis\.0\.weight is not finite float16"):
        replace(network.weights, synthesis=synthesis)
