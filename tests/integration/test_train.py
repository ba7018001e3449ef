"""The train job as its users run it: images in, a bundle out, whatever is killed meanwhile."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from bls.bundle import load_bundle
from tests.images import random_fields

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
SMALL = ("--batch-size", 4, "--patch-size", 64, "--num-filters", 8, "--checkpoint-steps", 20, "--evaluation-steps", 40)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    fields = (random_fields(24, 96, seed=3) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    for index, pixels in enumerate(fields):
        Image.fromarray(pixels).save(folder / f"{index}.png")
    (folder / "broken.png").write_bytes(b"no image")
    return folder


def command(photographs: Path, output: Path, *arguments: object) -> list[str]:
    folders = ("--data", photographs, "--output", output / "bundle", "--storage", output / "storage")
    return [str(part) for part in (sys.executable, ROOT / "jobs" / "train.py", *folders, *SMALL, *arguments)]


def train(photographs: Path, output: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(photographs, output, *arguments), capture_output=True, text=True, timeout=600)


@contextmanager
def started(photographs: Path, output: Path, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Start the job; at the end it is gone, and so are the processes below it."""
    with subprocess.Popen(command(photographs, output, *arguments), stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()
    deadline = time.monotonic() + 60
    while any(map(_is_worker, _processes())) and time.monotonic() < deadline:
        time.sleep(0.5)


def wait_for(process: subprocess.Popen[str], text: str) -> list[str]:
    """Read what a job says until a line contains the text."""
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if text in line:
            return lines
    raise AssertionError(f"the job ended without {text!r}: {''.join(lines)}")


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    """Return the training workers below a job's process."""
    parents = _processes()

    def is_below(pid: int) -> bool:
        return pid == process.pid or (pid > 1 and is_below(parents.get(pid, 0)))

    return [pid for pid in parents if _is_worker(pid) and is_below(pid)]


def _processes() -> dict[int, int]:
    """Return the parent of every process."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    return parents


def _is_worker(pid: int) -> bool:
    with suppress(OSError):
        return b"RayTrainWorker" in (Path("/proc") / str(pid) / "cmdline").read_bytes()
    return False


def curve(output: Path, quality: int) -> list[dict[str, float]]:
    rows = pq.read_table(output / "bundle" / "training.parquet").to_pylist()
    return [row for row in rows if row["qualities"] == str(quality)]


def test_a_killed_fit_goes_on(photographs: Path, tmp_path: Path) -> None:
    with started(photographs, tmp_path, "--steps", 80) as process:
        wait_for(process, "step 40")
    done = train(photographs, tmp_path, "--steps", 80)
    assert done.returncode == 0, done.stderr
    assert "going on from step" in done.stderr and "1 not_an_image" in done.stderr
    assert [row["step"] for row in curve(tmp_path, 4)] == [20, 40, 60, 80]
    assert [str(each) for each in load_bundle(tmp_path / "bundle").qualities] == ["4"]


@pytest.mark.slow
def test_a_sweep_of_two_workers_is_killed_resumed_and_used(photographs: Path, tmp_path: Path) -> None:
    sweep = ("--qualities", "2:3", "4", "--num-workers", 2, "--steps", 160)
    with started(photographs, tmp_path, *sweep) as process:
        wait_for(process, "quality 4  step 80")
    done = train(photographs, tmp_path, *sweep)
    assert done.returncode == 0, done.stderr
    assert "going on from step" in done.stderr and "held-out images at quality 4: " in done.stderr
    assert "1 not_an_image" in done.stderr
    assert [str(each) for each in load_bundle(tmp_path / "bundle").qualities] == ["2:3", "4"]
    assert (tmp_path / "bundle" / "training.png").read_bytes().startswith(b"\x89PNG")
    compress = (sys.executable, ROOT / "jobs" / "compress_dataset.py", "--bundle", tmp_path / "bundle", "--quality", 4)
    images = ("--input", photographs, "--output", tmp_path / "compressed", "--num-workers", 1)
    compressed = subprocess.run([*map(str, (*compress, *images))], capture_output=True, text=True, timeout=600)
    assert compressed.returncode == 3, compressed.stderr  # one image is broken
    # An undisturbed run of one worker has the same curve.
    alone = train(photographs, tmp_path / "alone", "--qualities", "4", "--steps", 160)
    assert alone.returncode == 0, alone.stderr
    expected = [row["loss"] for row in curve(tmp_path / "alone", 4)]
    assert len(expected) == 8
    assert [row["loss"] for row in curve(tmp_path, 4)] == pytest.approx(expected, rel=0.01)
    # Again: nothing is left to do, and the bundle stays what it is.
    fingerprint = load_bundle(tmp_path / "bundle").fingerprint
    again = train(photographs, tmp_path, *sweep)
    assert again.returncode == 0 and "step" not in again.stderr, again.stderr
    assert load_bundle(tmp_path / "bundle").fingerprint == fingerprint


@pytest.mark.slow
def test_a_lost_worker_is_replaced(photographs: Path, tmp_path: Path) -> None:
    with started(photographs, tmp_path, "--num-workers", 2, "--steps", 300) as process:
        wait_for(process, "step 160")  # Ray Train learns of a checkpoint some seconds after it was written
        victims = workers_of(process)
        assert len(victims) == 2
        os.kill(victims[0], signal.SIGKILL)
        wait_for(process, "going on from step")
        wait_for(process, "quality 4: in")
        assert process.wait(60) == 0
    assert [row["step"] for row in curve(tmp_path, 4)] == list(range(20, 301, 20))


@pytest.mark.slow
def test_a_set_that_does_not_fit_into_memory_is_streamed(photographs: Path, tmp_path: Path) -> None:
    streamed = ("--max-cached-gib", 1e-6, "--steps", 20, "--num-workers", 2, "--init", "klt")
    many = [photographs] * 4  # more than the images that are read at once
    done = train(photographs, tmp_path, *streamed, "--data", *many)
    assert done.returncode == 0, done.stderr
    assert "training on a stream" in done.stderr
    assert "left out of the stream" in done.stderr and "not_an_image" in done.stderr.split("left out of the stream")[1]
    assert [str(each) for each in load_bundle(tmp_path / "bundle").qualities] == ["4"]
