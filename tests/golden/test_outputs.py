"""Outputs of every release are read, resumed, verified and restored for ever."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from jobs import decompress_dataset, query_metrics, verify_dataset
from pipeline import CompressedImages
from pipeline.console.exits import ExitCode
from pipeline.ledger.output import Output
from tests.golden.write_outputs import BROKEN, GOLDEN, compress
from tests.inline import run_inline

# One output is half finished, which readers warn of.
pytestmark = pytest.mark.filterwarnings("ignore:.*is not finished")

FOLDERS = sorted(GOLDEN.glob("outputs-*"))
BUNDLE = str(GOLDEN / "v1" / "bundle")
KEYS = {"committed": ["a.png", "c.png"], "half": ["a.png"], "retried": ["a.png", "c.png", BROKEN]}
KEYS["grown"] = KEYS["committed"]


@pytest.fixture(params=FOLDERS, ids=lambda folder: folder.name)
def outputs(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of a golden folder, whose jobs run in this process."""
    run_inline(monkeypatch, decompress_dataset, verify_dataset)
    return Path(shutil.copytree(request.param, tmp_path / "golden"))


def keys(output: Path) -> list[str]:
    return [sample["key"] for sample in CompressedImages(str(output), bundle=BUNDLE)]


def rows(output: Path) -> list[dict[str, Any]]:
    files = (output / marker.files["metrics"].name for marker in Output(str(output)).markers())
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def verify(output: Path, images: Path) -> int:
    given = ["--input", str(output), "--bundle", BUNDLE, "--decode", "--originals", str(images)]
    return verify_dataset.main(given)


@pytest.mark.parametrize("name", KEYS)
def test_an_output_is_read_verified_and_restored(outputs: Path, name: str) -> None:
    output = outputs / name
    assert keys(output) == KEYS[name]
    assert query_metrics.main(["--input", str(output), "SELECT max(COLUMNS(*)) FROM images"]) == ExitCode.DONE
    assert verify(output, outputs / "images") == ExitCode.DONE
    restored = outputs / "restored"
    given = ["--input", str(output), "--output", str(restored), "--bundle", BUNDLE]
    # What is compressed is restored; that the compress job is not at its end is told by the exit code.
    assert decompress_dataset.main(given) == (ExitCode.DONE_IN_PART if name == "half" else ExitCode.DONE)
    found = [str(path.relative_to(restored / "images")) for path in (restored / "images").rglob("*.png")]
    assert sorted(found) == sorted(KEYS[name])


@pytest.mark.parametrize("name", KEYS)
def test_an_output_is_resumed(outputs: Path, name: str) -> None:
    output = outputs / name
    before = Output(str(output)).markers()
    compress(outputs / "images", output)
    after = Output(str(output)).markers()
    assert [marker for marker in after if marker in before] == before, "what was done stays as it is"
    assert [marker.retry for marker in after] == ([0, 0, 1] if name == "retried" else [0, 0, 0])
    assert keys(output) == (KEYS["retried"] if name == "retried" else KEYS["committed"])
    assert verify(output, outputs / "images") == ExitCode.DONE


def test_a_kept_original_is_read_verified_and_restored(outputs: Path) -> None:
    output, restored = outputs / "kept", outputs / "restored"
    assert [row["status"] for row in rows(output)] == ["ok", "kept"]
    samples = list(CompressedImages(str(output), bundle=BUNDLE))
    with Image.open(outputs / "tiles" / "b.png") as original:
        assert np.array_equal(samples[1]["image"][:, :, 0], np.asarray(original.convert("L")))
    assert [sample["key"] for sample in samples] == ["a.png", "b.png"]
    assert verify(output, outputs / "tiles") == ExitCode.DONE
    given = ["--input", str(output), "--output", str(restored), "--bundle", BUNDLE]
    assert decompress_dataset.main(given) == ExitCode.DONE
    assert (restored / "images" / "b.png").read_bytes() == (outputs / "tiles" / "b.png").read_bytes()


def test_a_quarantined_image_is_tried_again(outputs: Path) -> None:
    mended, output = outputs / "images" / BROKEN, outputs / "committed"
    shutil.copy(outputs / "images" / "a.png", mended)
    compress(outputs / "images", output, retry_quarantined=True)
    assert [marker.retry for marker in Output(str(output)).markers()] == [0, 0, 1]
    assert keys(output) == KEYS["retried"]
