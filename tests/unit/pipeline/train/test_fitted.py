"""Fitted models in the storage folder: what is kept is what comes back, and only once it is whole."""

from pathlib import Path

import pytest

from bls.ladder import QualityRange
from bls.training.trainer import TrainingConfig
from bls.transforms.networks import TransformConfig
from pipeline.ledger.damage import DamagedFileError
from pipeline.storage.folder import list_names
from pipeline.storage.opening import open_folder
from pipeline.train.fit import FitConfig
from pipeline.train.fitted import DONE, check_settings, read_curve, read_fitted, write_fitted
from pipeline.train.patches import PatchConfig
from tests.bundles import small_network

FOUR = QualityRange(4, 4)
FIT = FitConfig(
    FOUR, TrainingConfig(steps=20), TransformConfig(num_filters=12), PatchConfig(patch_size=64), batch_size=2
)


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


@pytest.mark.parametrize("name", ["fitted/quality-4/network.json", "quality-4/notes.txt"])
def test_a_storage_with_other_files_is_refused(tmp_path: Path, name: str) -> None:
    storage = open_folder(str(tmp_path))
    storage.write(name, b"somebody's")
    with pytest.raises(ValueError, match=f"did not write, {name} for example: use another --storage"):
        check_settings(storage, FIT, data=["photos"], init="klt")
    assert list(list_names(storage)) == [name]


def test_a_run_goes_on_with_its_own_settings_alone(tmp_path: Path) -> None:
    storage = open_folder(str(tmp_path))
    check_settings(storage, FIT, data=["photos"], init="klt")
    write_fitted(storage, small_network(4), [], step=20)
    check_settings(storage, FIT, data=["photos"], init="klt")
    with pytest.raises(ValueError, match=r"quality-4\.json was begun with data \['photos'\], this run has data"):
        check_settings(storage, FIT, data=["paintings"], init="klt")
    storage.write("quality-4.json", b"[1]")
    with pytest.raises(DamagedFileError, match=r"quality-4\.json is damaged or was edited"):
        check_settings(storage, FIT, data=["photos"], init="klt")
