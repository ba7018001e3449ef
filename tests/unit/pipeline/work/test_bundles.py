from pathlib import Path

import fsspec
import pytest

from bls import bundle
from bls.bundle import BundleError
from pipeline.work.bundles import load_bundle


def test_a_bundle_is_read_from_any_storage(tiny_bundle: Path) -> None:
    fsspec.filesystem("memory").put(str(tiny_bundle), "/bundles/", recursive=True)
    (folder,) = fsspec.filesystem("memory").ls("/bundles", detail=False)
    fitted = bundle.load_bundle(tiny_bundle)
    for uri in (f"memory://{folder}", f"file://{tiny_bundle}", str(tiny_bundle)):
        assert load_bundle(uri).fingerprint == fitted.fingerprint
    assert load_bundle(None).fingerprint == bundle.load_bundle().fingerprint


def test_what_is_no_bundle_is_named() -> None:
    fsspec.filesystem("memory").pipe("/other/notes.txt", b"")
    with pytest.raises(
        BundleError, match=r"memory://other has no bundle\.json: pass the folder that jobs/train\.py wrote"
    ):
        load_bundle("memory://other")


def test_a_damaged_file_is_refused(tiny_bundle: Path) -> None:
    memory = fsspec.filesystem("memory")
    for path in tiny_bundle.iterdir():
        memory.pipe(
            f"/damaged/{path.name}",
            path.read_bytes()[:-1] + b"x" if path.suffix == ".safetensors" else path.read_bytes(),
        )
    with pytest.raises(BundleError, match=r"memory://damaged/quality-2\.safetensors has \w*fingerprint .* damaged"):
        load_bundle("memory://damaged")
