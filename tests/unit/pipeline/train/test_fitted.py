"""Fitted models in the storage folder: what is kept is what comes back, and only once it is whole."""

from pathlib import Path

import pytest

from bls.ladder import QualityRange
from pipeline.storage.opening import open_folder
from pipeline.train.fitted import DONE, read_curve, read_fitted, write_fitted
from tests.bundles import small_network

FOUR = QualityRange(4, 4)


@pytest.mark.parametrize("scheme", ["", "memory://"])
def test_a_model_and_its_curve_come_back_once_they_are_whole(tmp_path: Path, scheme: str) -> None:
    storage = open_folder(f"{scheme}{tmp_path}")
    assert read_fitted(storage, FOUR) is None
    model = small_network(4)
    write_fitted(storage, model, [{"qualities": "4", "step": 20, "loss": 1.5}], step=20)
    fitted = read_fitted(storage, FOUR)
    assert fitted is not None and fitted.fingerprint == model.fingerprint
    assert read_curve(storage, FOUR).to_pylist()[0]["loss"] == 1.5
    assert read_fitted(storage, QualityRange(1, 4.5)) is None
    storage.child("fitted/quality-4").delete(DONE)
    assert read_fitted(storage, FOUR) is None
