"""The bundle that a train job writes: models are added, whether it lies on a disk or in an object store."""

import io
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from bls.bundle import load_bundle, save_bundle
from bls.ladder import QualityRange
from pipeline.storage.folder import list_names
from pipeline.storage.opening import open_folder
from pipeline.train.bundle import CURVES, CURVES_PLOT, add_to_bundle, check_nothing_is_lost
from pipeline.train.fitted import write_fitted
from tests.bundles import small_network


@pytest.mark.parametrize("scheme", ["", "memory://"])
def test_models_are_added_to_a_bundle_and_what_is_there_is_kept(tmp_path: Path, scheme: str) -> None:
    output, storage = open_folder(f"{scheme}{tmp_path}/bundle"), open_folder(f"{scheme}{tmp_path}/storage")
    output.write("notes.txt", b"mine")
    models = [small_network(4), small_network(2), small_network(3.5, 5)]  # the last one takes the place of the first
    for step, model in enumerate(models):
        curve: list[dict[str, Any]] = [
            {
                "qualities": str(model.qualities),
                "step": 10 * step + n,
                "loss": 2.0 - n,
                "estimated_bpp": 1.0,
                "psnr_db": 30.0 + n,
            }
            for n in (0, 1)
        ]
        write_fitted(storage, model, curve, step=step)
        add_to_bundle(output, model, storage)

    assert output.read("notes.txt") == b"mine"
    assert output.read(CURVES_PLOT).startswith(b"\x89PNG")
    rows = pq.read_table(io.BytesIO(output.read(CURVES))).to_pylist()
    assert [(row["qualities"], row["step"]) for row in rows] == [("2", 10), ("2", 11), ("3.5:5", 20), ("3.5:5", 21)]
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in list_names(output):
        (copy / name).write_bytes(output.read(name))
    assert [each.fingerprint for each in load_bundle(copy).networks] == [each.fingerprint for each in models[1:]]


def test_a_model_that_compressed_something_is_not_replaced_unasked(tmp_path: Path) -> None:
    output, storage = open_folder(f"{tmp_path}/bundle"), open_folder(f"{tmp_path}/storage")
    check_nothing_is_lost(output, storage, [QualityRange(2, 2), QualityRange(4, 4)])  # there is no bundle yet
    ours, other = small_network(4), small_network(4, seed=1)
    save_bundle(tmp_path / "bundle", [ours])
    check_nothing_is_lost(output, storage, [QualityRange(2, 2)])
    with pytest.raises(
        ValueError, match=f"quality 4, fingerprint {ours.fingerprint.hex()}, that --storage .* not hold"
    ):
        check_nothing_is_lost(output, storage, [QualityRange(2, 2), QualityRange(4, 4)])
    write_fitted(storage, ours, [], step=1)
    check_nothing_is_lost(output, storage, [QualityRange(2, 2), QualityRange(4, 4)])  # a finished run again
    write_fitted(storage, other, [], step=1)
    with pytest.raises(ValueError, match="or --overwrite to replace it"):
        check_nothing_is_lost(output, storage, [QualityRange(4, 4)])
