"""The order of a sweep; what needs a cluster is tested with the job."""

from pipeline.train_engine import neighbours


def test_models_start_from_their_neighbour_towards_the_middle() -> None:
    lmbdas = {1: 0.0018, 2: 0.0035, 4: 0.013, 6: 0.0483, 8: 0.18}
    assert neighbours(lmbdas, middle=0.013) == {4: None, 6: 4, 8: 6, 2: 4, 1: 2}
    assert neighbours(lmbdas, middle=0.2) == {8: None, 6: 8, 4: 6, 2: 4, 1: 2}
    assert neighbours({3: 0.0067}, middle=0.013) == {3: None}
