"""Bundles: what is written is what is loaded, and what is damaged is named."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bls.bundle import LMBDAS, MANIFEST, BundleError, load_bundle, save_bundle, shipped_bundle
from tests.bundles import small_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle")
    save_bundle(path, [small_model(4), small_model(2)])
    return path


def _copy(folder: Path, to: Path) -> Path:
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to


def test_a_bundle_comes_back_as_it_was(folder: Path) -> None:
    bundle, model = load_bundle(folder), small_model(4)
    assert sorted(bundle.models) == [2, 4]
    loaded = bundle.models[4]
    assert loaded.to_bytes() == model.to_bytes() and loaded.fingerprint == model.fingerprint
    assert loaded.config == model.config and loaded.lmbda == model.lmbda
    for name, value in model.weights.items():
        np.testing.assert_array_equal(loaded.weights[name], value)


def test_one_model_of_a_bundle_is_read_alone(tmp_path: Path) -> None:
    save_bundle(tmp_path, [small_model(2), small_model(4)])
    (tmp_path / "quality-2.safetensors").unlink()
    assert load_bundle(tmp_path, quality=4).models[4].fingerprint == small_model(4).fingerprint
    with pytest.raises(BundleError, match=r"quality is 3, the bundle has \[2, 4\]: choose one of these"):
        load_bundle(tmp_path, quality=3)


def test_fingerprints_follow_the_content() -> None:
    assert small_model(4).fingerprint == small_model(4).fingerprint
    assert small_model(4).fingerprint != small_model(4, seed=1).fingerprint
    assert len(small_model(4).fingerprint) == 8


def test_a_folder_without_a_manifest_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"has no bundle\.json"):
        load_bundle(tmp_path)


def test_a_damaged_file_is_named(folder: Path, tmp_path: Path) -> None:
    path = _copy(folder, tmp_path) / "quality-4.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError, match="is damaged or was exchanged"):
        load_bundle(tmp_path)
    path.unlink()
    with pytest.raises(BundleError, match="is missing"):
        load_bundle(tmp_path)


def test_a_model_whose_parts_do_not_fit_is_refused(folder: Path, tmp_path: Path) -> None:
    manifest = json.loads((_copy(folder, tmp_path) / MANIFEST).read_text())
    manifest["models"][0]["config"]["num_filters"] += 1
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="expected the same of each"):
        load_bundle(tmp_path)


def test_a_bundle_without_the_mixed_coder_comes_back_without(tmp_path: Path) -> None:
    save_bundle(tmp_path, [replace(small_model(4), mixed=None)])
    assert load_bundle(tmp_path).models[4].mixed is None


def test_a_mixed_coder_of_other_channels_is_refused(tmp_path: Path) -> None:
    save_bundle(tmp_path, [replace(small_model(4), mixed=small_model(4, num_filters=6).mixed)])
    with pytest.raises(BundleError, match="12 channels to adapt and 6 to mix"):
        load_bundle(tmp_path)


@pytest.mark.parametrize("text", ["{", '{"format": 99, "models": []}'])
def test_a_manifest_of_another_format_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(BundleError, match=r"copy the bundle again|reads format"):
        load_bundle(tmp_path)


def test_a_file_that_leads_out_of_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    manifest = json.loads((_copy(folder, tmp_path) / MANIFEST).read_text())
    manifest["models"][0]["file"] = "../quality-2.safetensors"
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="expected a file beside it"):
        load_bundle(tmp_path)


@pytest.mark.parametrize("name", ["default", "perceptual"])
def test_shipped_bundles_hold_all_coders_and_their_training_curve(name: str) -> None:
    folder = shipped_bundle().parent / name
    models = load_bundle(folder).models
    assert tuple(models) == ((1, 2, 3, 4, 5, 6, 7, 8) if name == "default" else (4,))
    for quality, model in models.items():
        assert model.coders == ("mixed", "adaptive", "static")
        assert model.lmbda == LMBDAS[quality] or model.training["distortion"] == "ms-ssim"
    assert (folder / "training.parquet").stat().st_size > 1000
