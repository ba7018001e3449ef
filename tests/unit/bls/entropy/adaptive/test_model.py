import numpy as np
import pytest

from bls.entropy.adaptive.model import NEIGHBOURS, NUM_SOURCES, AdaptiveModel, to_sixteen_bits
from bls.entropy.table import ProbabilityTable
from bls.entropy.tree import IS_MODE_NOT, MAX_CHAIN, NUM_CONTEXTS, NUM_DECISIONS

TABLE = ProbabilityTable.from_probabilities(np.array([[0.125, 0.25, 0.5, 0.125], [0.5, 0.25, 0.125, 0.125]]), -1)
MODEL = AdaptiveModel.from_table(TABLE)


def changed(name: str, index: tuple[int, ...], value: int) -> dict[str, np.ndarray]:
    stored = {key: array.copy() for key, array in MODEL.to_arrays().items()}
    stored[name][index] = value
    return stored


def test_model_of_a_table_knows_its_shape() -> None:
    assert MODEL.channels == 2
    assert MODEL.mode.tolist() == [1, -1]
    assert MODEL.below.tolist() == [2, 0]
    assert MODEL.above.tolist() == [1, 3]
    assert MODEL.probabilities.shape == (2, NUM_CONTEXTS, NUM_DECISIONS)
    assert (MODEL.probabilities == MODEL.probabilities[:, :1]).all()
    # The escape counts as no mode, and took its one from the mode's half.
    assert MODEL.probabilities[:, 0, IS_MODE_NOT].tolist() == [32769, 32769]


def test_probabilities_are_never_certain() -> None:
    assert to_sixteen_bits(np.array([0.0, 1e-9, 0.5, 1.0])).tolist() == [1, 1, 32768, 65535]


def test_arrays_rebuild_the_model() -> None:
    rebuilt = AdaptiveModel.from_arrays(MODEL.to_arrays()).to_arrays()
    assert rebuilt.keys() == MODEL.to_arrays().keys()
    assert all(np.array_equal(rebuilt[name], array) for name, array in MODEL.to_arrays().items())


@pytest.mark.parametrize("name", MODEL.to_arrays())
def test_missing_array_is_named(name: str) -> None:
    stored = MODEL.to_arrays()
    del stored[name]
    with pytest.raises(ValueError, match=f"adaptive model lacks {name}: write the bundle again"):
        AdaptiveModel.from_arrays(stored)


@pytest.mark.parametrize("name", MODEL.to_arrays())
def test_array_of_another_type_or_shape_is_named(name: str) -> None:
    stored = MODEL.to_arrays()
    array = stored[name]
    for wrong in (array.astype(np.int64), array.astype(array.dtype.newbyteorder(">")), array[..., None]):
        with pytest.raises(ValueError, match=r"adaptive model has \w+ of .*, expected .*: write the bundle again"):
            AdaptiveModel.from_arrays(stored | {name: wrong})


@pytest.mark.parametrize("name", ["below", "offset", "sources", "probabilities"])
def test_array_of_another_number_of_channels_is_named(name: str) -> None:
    stored = MODEL.to_arrays()
    with pytest.raises(ValueError, match=f"adaptive model has {name} of"):
        AdaptiveModel.from_arrays(stored | {name: np.concatenate([stored[name], stored[name]])})


def test_scalar_mode_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"has mode of int32 \(\), expected int32 \(1,\)"):
        AdaptiveModel.from_arrays(MODEL.to_arrays() | {"mode": np.array(0, np.int32)})


@pytest.mark.parametrize("name", ["below", "above"])
@pytest.mark.parametrize("length", [-1, MAX_CHAIN + 1])
def test_chain_out_of_range_is_rejected(name: str, length: int) -> None:
    AdaptiveModel.from_arrays(changed(name, (1,), MAX_CHAIN))
    with pytest.raises(ValueError, match=f"has chains of .*{length}.*, expected 0 to 255: write the bundle again"):
        AdaptiveModel.from_arrays(changed(name, (1,), length))


@pytest.mark.parametrize(("channel", "source"), [(0, 0), (1, 1), (1, 2), (1, 65535)])
def test_source_that_is_not_coded_before_is_rejected(channel: int, source: int) -> None:
    stored = changed("sources", (channel, NUM_SOURCES - 1), source)
    stored["source_weights"][channel, NUM_SOURCES - 1] = 1
    with pytest.raises(ValueError, match="has a source that is not coded before its channel: write the bundle again"):
        AdaptiveModel.from_arrays(stored)


def test_source_without_weight_may_come_later_but_must_exist() -> None:
    AdaptiveModel.from_arrays(changed("sources", (0, 3), 1))
    with pytest.raises(ValueError, match="has a source that is not coded before its channel"):
        AdaptiveModel.from_arrays(changed("sources", (0, 3), 2))


def test_certain_probability_is_rejected() -> None:
    with pytest.raises(ValueError, match="has a probability of 0, expected 1 to 65535"):
        AdaptiveModel.from_arrays(changed("probabilities", (1, NUM_CONTEXTS - 1, NUM_DECISIONS - 1), 0))


def test_neighbours_are_coded_before_the_symbol() -> None:
    assert all(dy < 0 or (dy == 0 and dx < 0) for dy, dx in NEIGHBOURS)
    assert len(set(NEIGHBOURS)) == 6
