"""The jobs as their users run them: commands, folders, exit codes, an embedded Ray."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from bls.quality import mse_255, psnr_db
from tests.images import random_fields

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
BROKEN = {"text.jpg": "not_an_image", "truncated.jpg": "truncated", "zero.png": "empty"}


def job(name: str, *arguments: object) -> list[str]:
    return [sys.executable, str(ROOT / "jobs" / f"{name}.py"), *map(str, arguments)]


def run(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(job(name, *arguments), capture_output=True, text=True, timeout=300)


def metrics(output: Path) -> list[dict[str, Any]]:
    """Return the rows of a finished job by key, without what differs from run to run."""
    rows = [row for path in (output / "metrics").glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    kept = [{name: value for name, value in row.items() if not name.endswith("_seconds")} for row in rows]
    return sorted(kept, key=lambda row: str(row["key"]))


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of 60 small images in several formats and folders, three of them broken."""
    folder = tmp_path_factory.mktemp("photographs")
    (folder / "a b").mkdir()
    fields = (random_fields(57, 64, seed=1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    for index, pixels in enumerate(fields):
        suffix = ("png", "jpg", "webp")[index % 3]
        name = f"a b/ü{index}.{suffix}" if index % 2 else f"{index}.{suffix}"
        Image.fromarray(pixels[: 40 + index % 20] if index % 5 else pixels[:, :, 0]).save(folder / name)
    (folder / "text.jpg").write_text("no image")
    (folder / "zero.png").touch()
    data = (folder / "4.jpg").read_bytes()
    (folder / "truncated.jpg").write_bytes(data[: len(data) // 2])
    return folder


@pytest.fixture(scope="module")
def compressed(photographs: Path, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the output of an undisturbed compress job."""
    output = tmp_path_factory.mktemp("compressed")
    done = run("compress_dataset", "--input", photographs, "--output", output, "--bundle", tiny_bundle)
    assert done.returncode == 3, done.stderr
    assert "57 compressed, 3 quarantined" in done.stdout and f"{output}/metrics/*.parquet" in done.stdout
    return output


def test_every_image_has_one_row(photographs: Path, compressed: Path) -> None:
    rows = metrics(compressed)
    files = [str(path.relative_to(photographs)) for path in photographs.rglob("*.*")]
    assert [row["key"] for row in rows] == sorted(files)
    assert {row["key"]: row["status"] for row in rows if row["status"] != "ok"} == BROKEN
    for row in rows:
        if row["status"] == "ok":
            assert row["verified"] and row["bpp"] == 8 * row["num_bytes"] / (row["width"] * row["height"])
        else:
            assert row["error_message"] and row["bpp"] is None


def test_decompressed_images_have_the_quality_that_metrics_say(
    photographs: Path, compressed: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    done = run("decompress_dataset", "--input", compressed, "--output", tmp_path, "--bundle", tiny_bundle)
    assert done.returncode == 0, done.stderr
    paths = {row["key"]: row["path"] for row in metrics(tmp_path)}
    compared = [row for row in metrics(compressed) if row["status"] == "ok"]
    assert sorted(paths) == [row["key"] for row in compared]
    for row in compared:
        x, x_hat = (
            np.asarray(Image.open(photographs / row["key"])),
            np.asarray(Image.open(tmp_path / "images" / paths[row["key"]])),
        )
        if row["mode"] == "RGB":
            assert psnr_db(mse_255(x, x_hat)) == pytest.approx(row["psnr_db"], abs=0.01)
        assert x.shape[:2] == x_hat.shape[:2]


def test_a_killed_job_goes_on(photographs: Path, compressed: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    arguments = ("--input", photographs, "--output", tmp_path, "--bundle", tiny_bundle, "--shard-size", 1)
    command = job("compress_dataset", *arguments, "--num-workers", 1)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    commits = tmp_path / "commits"
    deadline = time.monotonic() + 120
    while not (commits.exists() and len(list(commits.iterdir())) >= 3):
        assert time.monotonic() < deadline and process.poll() is None, "nothing was committed"
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(2)  # what the killed worker had begun
    before = {path: path.stat().st_mtime_ns for path in commits.iterdir()}
    assert 3 <= len(before) < 60, "the job was killed too late to show anything"
    done = run("compress_dataset", *arguments)
    assert done.returncode == 3, done.stderr
    assert all(path.stat().st_mtime_ns == time_ns for path, time_ns in before.items())
    assert len(list(commits.iterdir())) == len(list((tmp_path / "metrics").iterdir())) == 60
    undisturbed = [{**row, "shard": None} for row in metrics(compressed)]
    assert [{**row, "shard": None} for row in metrics(tmp_path)] == undisturbed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--quality", 2), "quality was 4, now 2"),
        (("--quality", 5), "the bundle has [2, 4]"),
        (("--qualty", 4), "--quality"),
        (("--gpus-per-worker", 1), "--gpus-per-worker"),
    ],
)
def test_wrong_usage_is_refused(
    arguments: tuple[object, ...], message: str, photographs: Path, compressed: Path, tiny_bundle: Path
) -> None:
    before = metrics(compressed)
    output = compressed if "--quality" in arguments else compressed.with_name("new")
    done = run("compress_dataset", "--input", photographs, "--output", output, "--bundle", tiny_bundle, *arguments)
    assert done.returncode == 2
    assert message in done.stderr + done.stdout
    assert metrics(compressed) == before
