"""The evaluation jobs as their users run them, on photographs of scikit-image."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from skimage import data

from bls.bundle import save_bundle
from bls.entropy.coders import CODERS
from jobs import evaluate
from pipeline.evaluate.coding import our_name
from tests.bundles import small_network

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
CODECS = ("jpeg-420", "webp")
REFERENCE = "codec,bpp,psnr_rgb_db,ms_ssim\nold,0.1,22,0.7\nold,0.5,26,0.9\nold,3,40,0.99\nother,1,30,0.9\n"


def run(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "jobs" / f"{name}.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env={**os.environ})


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of a colour, a grayscale and a small photograph, and a broken file."""
    folder = tmp_path_factory.mktemp("photographs")
    Image.fromarray(data.astronaut()[:176, 150:350]).save(folder / "astronaut.png")
    Image.fromarray(data.camera()[100:280, 150:330]).save(folder / "camera.png")
    Image.fromarray(data.chelsea()[100:180, 100:200]).save(folder / "small.png")
    (folder / "broken.jpg").write_text("no image")
    (folder / "reference.csv").write_text(REFERENCE)
    return folder


def arguments(photographs: Path, tiny_bundle: Path, output: Path) -> list[object]:
    compared = ["--codecs", *CODECS, "--reference", photographs / "reference.csv", "--curves", "old"]
    return ["--input", photographs, "--output", output, "--bundle", tiny_bundle, *compared, "--num-workers", 1]


@pytest.fixture(scope="module")
def evaluated(photographs: Path, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return the output of a finished job, and what it printed."""
    output = tmp_path_factory.mktemp("evaluated")
    done = run("evaluate", *arguments(photographs, tiny_bundle, output))
    assert done.returncode == 3, done.stderr
    return output, done.stdout


def test_a_folder_of_images_becomes_tables_and_plots(evaluated: tuple[Path, str]) -> None:
    output, printed = evaluated
    rows = pq.read_table(output / "images.parquet").to_pylist()
    assert {row["status"] for row in rows if row["key"] == "broken.jpg"} == {"not_an_image"}
    good = [row for row in rows if row["status"] == "ok"]
    assert {row["key"] for row in good} == {"astronaut.png", "camera.png", "small.png"}
    assert {row["codec"] for row in good} == {*map(our_name, CODERS), *CODECS}
    assert {row["ms_ssim"] is None for row in good if row["key"] == "small.png"} == {True}
    with (output / "summary.csv").open() as file:
        means: list[dict[str, Any]] = list(csv.DictReader(file))
    for point in means:
        rates = [r["bpp"] for r in good if (r["codec"], str(r["quality"])) == (point["codec"], point["quality"])]
        assert len(rates) == 3 and float(point["bpp"]) == pytest.approx(np.mean(rates), abs=1e-5)
        assert (point["num_images"], point["ms_ssim_num_images"]) == ("3", "2")
    with (output / "bd_rate.csv").open() as file:
        compared = {(row["codec"], row["is_published"]) for row in csv.DictReader(file)}
    assert {("jpeg-420", "False"), ("webp", "False"), ("old", "True")} < compared
    for stem in ("rd_psnr", "rd_ms_ssim"):
        assert (output / f"{stem}.png").read_bytes().startswith(b"\x89PNG")
        assert (output / f"{stem}.svg").read_text().startswith("<?xml")
    text = (output / "README.md").read_text()
    assert "old (published)" in text and "| not_an_image | all | 1 |" in text and "![" in text
    assert "3 measured, 1 left out" in printed and "BD-rate" in printed


@pytest.mark.slow
def test_a_rerun_does_only_what_is_missing(
    evaluated: tuple[Path, str], photographs: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    output, _ = evaluated
    before = pq.read_table(output / "images.parquet")
    # As if it had been killed: one image is not committed, and there is no report yet.
    (output / "shards" / "commits" / "shard-000001.json").unlink()
    (output / "README.md").unlink()
    done = run("evaluate", *arguments(photographs, tiny_bundle, output))
    assert done.returncode == 3 and "3 of 4 images are evaluated already" in done.stderr, done.stderr
    assert pq.read_table(output / "images.parquet").equals(before)
    assert (output / "README.md").exists()
    # Other settings are not mixed with it.
    done = run("evaluate", *arguments(photographs, tiny_bundle, output), "--qualities", 4)
    assert done.returncode == 2 and "qualities was [2.0, 4.0], now [4.0]" in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--qualities", 3), "quality is 3, the bundle serves 2, 4"),
        (("--codecs", "bpg"), "--codecs has bpg, expected some of jpeg-420"),
        (("--curves", "new"), "reference has no codec new: expected some of old other"),
        (("--reference", "nowhere.csv"), "nowhere.csv is not there"),
        (("--reference", ROOT / "tests"), "tests cannot be read"),
        (("--reference", ROOT / "tests" / "golden" / "found" / "tiff-3000000000-wide.images"), "reference"),
        (("--effort", 0, 4), "effort is 4"),
        (("--input", "nowhere"), "is not there, or does not hold images"),
        (("--cpus-per-worker", 0), "--cpus-per-worker is 0, expected 1 or more"),
    ],
)
def test_wrong_usage_is_refused(
    flags: tuple[object, ...],
    message: str,
    photographs: Path,
    tiny_bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = [*arguments(photographs, tiny_bundle, tmp_path), *flags]
    with pytest.raises(SystemExit) as exit_:  # of tyro, or of the job's last line
        sys.exit(evaluate.main([str(argument) for argument in given]))
    # tyro draws a frame around messages and breaks lines where it likes
    said = " ".join("".join(capsys.readouterr()).replace("│", " ").split())
    assert exit_.value.code == 2 and message in said, said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_relaxation_is_checked(photographs: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    save_bundle(bundle, [small_network(4)])
    folders = ("--input", photographs, "--output", tmp_path / "out", "--bundle", bundle)
    done = run("check_relaxation", *folders)
    assert done.returncode == 3, done.stderr
    assert "left out broken.jpg: the file is not an image of a format that is read" in done.stderr
    table = pq.read_table(tmp_path / "out" / "relaxation.parquet")
    rows = table.to_pylist()
    assert [row["key"] for row in rows] == ["astronaut.png", "camera.png", "small.png", "broken.jpg"]
    assert [row["status"] for row in rows] == ["ok", "ok", "ok", "not_an_image"]
    assert json.loads(table.schema.metadata[b"provenance"])["bundle"] in (tmp_path / "out" / "README.md").read_text()
    assert (tmp_path / "out" / "relaxation.png").read_bytes().startswith(b"\x89PNG")
    assert "| 4 | 3 | " in done.stdout
    empty = tmp_path / "empty"
    empty.mkdir()
    done = run("check_relaxation", "--input", empty, "--output", tmp_path / "out2")
    assert done.returncode == 2 and "has no images" in done.stderr
