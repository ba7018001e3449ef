"""Bundles: what is written is what is loaded, and what is damaged is named."""

import json
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bls.bundle import MANIFEST, Bundle, BundleError, load_bundle, read_bundle, save_bundle, shipped_bundle
from tests.bundles import small_network


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle")
    save_bundle(path, [small_network(4), small_network(2)])
    return path


def _copy(folder: Path, to: Path) -> Path:
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to


def test_a_bundle_comes_back_as_it_was(folder: Path) -> None:
    bundle, model = load_bundle(folder), small_network(4)
    assert [str(each) for each in bundle.qualities] == ["2", "4"]
    loaded = bundle.network(4)
    assert loaded.to_bytes() == model.to_bytes() and loaded.fingerprint == model.fingerprint
    assert loaded.config == model.config and loaded.qualities == model.qualities
    for name, value in model.weights.analysis.items():
        np.testing.assert_array_equal(loaded.weights.analysis[name], value)


def test_one_model_of_a_bundle_is_read_alone(tmp_path: Path) -> None:
    save_bundle(tmp_path, [small_network(2), small_network(4)])
    (tmp_path / "quality-2.safetensors").unlink()
    assert load_bundle(tmp_path, quality=4).network(4).fingerprint == small_network(4).fingerprint
    with pytest.raises(BundleError, match=r"quality is 3, the bundle serves 2, 4: choose one of these"):
        load_bundle(tmp_path, quality=3)


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
    manifest["networks"][0]["config"]["num_filters"] += 1
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="has other parameters than its architecture"):
        load_bundle(tmp_path)


def test_thumbnails_are_stored_and_no_part_of_the_fingerprint(folder: Path, tmp_path: Path) -> None:
    network = small_network(4)
    bare = replace(network, thumbnails=None)
    assert bare.fingerprint == network.fingerprint and bare.analysis_fingerprint == network.analysis_fingerprint
    save_bundle(tmp_path, [bare])
    assert load_bundle(tmp_path).network(4).thumbnails is None
    loaded = load_bundle(folder).network(4).thumbnails
    assert network.thumbnails is not None and loaded is not None
    for name, array in network.thumbnails.to_arrays().items():
        np.testing.assert_array_equal(getattr(loaded, name), array)


def test_thumbnails_that_the_manifest_does_not_name_are_refused(folder: Path, tmp_path: Path) -> None:
    manifest = json.loads((_copy(folder, tmp_path) / MANIFEST).read_text())
    del manifest["networks"][0]["thumbnails_fingerprint"]
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"has thumbnails_fingerprint .*, bundle\.json says none"):
        load_bundle(tmp_path)


def test_two_networks_of_the_same_quality_are_refused() -> None:
    with pytest.raises(ValueError, match="qualities 3:5 and 4 overlap"):
        Bundle([small_network(4), small_network(3, 5)])
    with pytest.raises(ValueError, match="without networks"):
        Bundle([])


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_hostile_bundle_is_an_error_of_its_own(data: st.DataObject) -> None:
    """Whatever is changed in manifest or file, loading ends in a bundle or in `BundleError`."""
    files = dict(_files_of_a_bundle())
    name = data.draw(st.sampled_from(sorted(files)))
    content = bytearray(files[name])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, min(len(content), 4000) - 1))
        content[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    files[name] = bytes(content)

    def read(file: str) -> bytes:
        if file not in files:
            raise FileNotFoundError(file)
        return files[file]

    with suppress(BundleError):
        read_bundle(read, "bundle")


@cache
def _files_of_a_bundle() -> tuple[tuple[str, bytes], ...]:
    with TemporaryDirectory() as folder:
        save_bundle(Path(folder), [small_network(4, num_filters=4)])
        return tuple((path.name, path.read_bytes()) for path in Path(folder).iterdir())


@pytest.mark.parametrize("text", ["{", '{"format": 99, "networks": []}'])
def test_a_manifest_of_another_format_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(BundleError, match=r"copy the bundle again|reads format"):
        load_bundle(tmp_path)


def test_a_file_that_leads_out_of_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    manifest = json.loads((_copy(folder, tmp_path) / MANIFEST).read_text())
    manifest["networks"][0]["file"] = "../quality-2.safetensors"
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="expected a file beside it"):
        load_bundle(tmp_path)


def test_shipped_bundles_are_whole() -> None:
    folders = sorted(path.parent for path in shipped_bundle().parent.glob(f"*/{MANIFEST}"))
    assert shipped_bundle() in folders
    for folder in folders:
        load_bundle(folder)
        assert (folder / "training.parquet").stat().st_size > 1000
    assert [load_bundle().qualities[0].low, load_bundle().qualities[-1].high] == [1, 8]
