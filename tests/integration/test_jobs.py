"""The jobs as their users run them: commands, folders, exit codes, an embedded Ray."""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from bls.measures.images import mse_255, psnr_db
from tests.images import random_fields
from tests.jobs import comparable, head_node, job, run, started_under, wait_until

pytestmark = pytest.mark.integration

BROKEN = {"text.jpg": "not_an_image", "truncated.jpg": "truncated", "zero.png": "empty"}


def told(errors: str) -> list[str]:
    """Return the lines of standard error but those about Ray: that it starts, and that a machine is busy."""
    about_ray = ("starting Ray on this machine", "joining the Ray cluster at", "no worker has started")
    return [line for line in errors.splitlines() if not line.startswith(about_ray)]


def metrics(output: Path) -> list[dict[str, Any]]:
    """Return the rows of a finished job by key, without what differs from run to run."""
    return comparable(row for path in (output / "metrics").glob("*.parquet") for row in pq.read_table(path).to_pylist())


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
    noise = [line for line in told(done.stderr) if not re.match(r"compressed \d+ of 60 images", line)]
    assert noise == []
    return output


@pytest.fixture(scope="module")
def one_photograph(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one")
    shutil.copy(photographs / "0.png", folder)
    return folder


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start a cluster of one node, which claims to have a GPU; return its address."""
    with head_node(tmp_path_factory.mktemp("cluster") / "log", "--num-cpus=1", "--num-gpus=1") as address:
        yield address


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


def test_a_cluster_does_the_same(one_photograph: Path, tiny_bundle: Path, tmp_path: Path, cluster: str) -> None:
    arguments = ("--input", one_photograph, "--output", tmp_path, "--bundle", tiny_bundle)
    done = run("compress_dataset", *arguments, RAY_ADDRESS=cluster)
    assert (done.returncode, told(done.stderr)) == (0, ["compressed 1 of 1 images"])
    assert [(row["key"], row["status"], row["verified"]) for row in metrics(tmp_path)] == [("0.png", "ok", True)]


@pytest.mark.skipif(torch.cuda.is_available(), reason="the worker would find a GPU; runs where there is none")
def test_a_gpu_that_workers_do_not_find_is_told(
    one_photograph: Path, tiny_bundle: Path, tmp_path: Path, cluster: str
) -> None:
    arguments = ("--input", one_photograph, "--output", tmp_path, "--bundle", tiny_bundle, "--gpus-per-worker", 0.5)
    done = run("compress_dataset", *arguments, RAY_ADDRESS=cluster)
    assert done.returncode == 1
    assert re.search("workers cannot start: .*CUDA", done.stderr)
    assert not (tmp_path / "commits").exists()


def test_the_printed_commands_show_metrics_and_restore_images_of_that_quality(
    photographs: Path, compressed: Path, tiny_bundle: Path
) -> None:
    again = run("compress_dataset", "--input", photographs, "--output", compressed, "--bundle", tiny_bundle)
    assert again.returncode == 3 and "nothing was left to do" in again.stdout
    report, query, restore = (line for line in again.stdout.splitlines() if "jobs/" in line)
    assert "report.py" in report  # which tests of its own run
    shown = subprocess.run(query, shell=True, capture_output=True, text=True, check=True)
    _, worst = min((row["psnr_db"], row["key"]) for row in metrics(compressed) if row["psnr_db"] is not None)
    assert worst in shown.stdout

    done = subprocess.run(restore, shell=True, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "57 restored, 0 quarantined" in done.stdout and "cannot be restored: 3\n" in done.stderr
    restored = compressed.with_name(f"{compressed.name}-restored")
    paths = {row["key"]: row["path"] for row in metrics(restored)}
    compared = [row for row in metrics(compressed) if row["status"] == "ok"]
    assert sorted(paths) == [row["key"] for row in compared]
    for row in compared:
        x, x_hat = (
            np.asarray(Image.open(path)) for path in (photographs / row["key"], restored / "images" / paths[row["key"]])
        )
        assert x.shape == x_hat.shape
        assert psnr_db(mse_255(x, x_hat)) == pytest.approx(row["psnr_db"], abs=0.01)


@pytest.mark.slow
def test_a_job_that_was_stopped_and_then_killed_goes_on(
    photographs: Path, compressed: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    output, commits = tmp_path / "out", tmp_path / "out" / "commits"
    arguments = ("--input", photographs, "--output", output, "--bundle", tiny_bundle, "--shard-size", 1)
    command = job("compress_dataset", *arguments, "--num-workers", 1)

    def interrupt(num_commits: int, end: Callable[[subprocess.Popen[str]], None]) -> tuple[int, str]:
        """End the job when there are so many commits; return its exit code and last words, when all is quiet."""
        mark = f"BLS_TEST_MARK={tmp_path}-{num_commits}"
        environment = {**os.environ, "BLS_TEST_MARK": mark.partition("=")[2]}
        with subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=environment,
        ) as process:
            wait_until(lambda: commits.exists() and len(list(commits.glob("*.json"))) >= num_commits, "commits")
            assert any("raylet" in command for command in started_under(mark).values())
            end(process)
            _, errors = process.communicate(timeout=60)
        wait_until(lambda: not started_under(mark), "the processes of Ray to end")
        return process.returncode, errors

    code, errors = interrupt(3, lambda process: process.terminate())
    assert code == 1
    # When the signal comes, the worker may be between two shards.
    assert re.findall(r"finishing (.*); press Ctrl-C again to stop at once\n", errors) in (["1 running shard"], [])
    assert errors.endswith("are left. What is committed stays: the same command goes on from there.\n")
    stopped = {path: path.stat().st_mtime_ns for path in commits.glob("shard-*.json")}
    code, _ = interrupt(len(stopped) + 3, lambda process: os.killpg(process.pid, signal.SIGKILL))
    assert code == -signal.SIGKILL
    before = {path: path.stat().st_mtime_ns for path in commits.glob("shard-*.json")}
    assert stopped.items() < before.items() and len(before) < 60, "the job was killed too late to show anything"

    done = run("compress_dataset", *arguments)
    assert done.returncode == 3, done.stderr
    assert f"{len(before)} of 60 images are compressed already" in done.stderr
    assert before.items() < {path: path.stat().st_mtime_ns for path in commits.glob("shard-*.json")}.items()
    assert len(list(commits.iterdir())) == len(list((output / "metrics").iterdir())) == 60
    undisturbed = [{**row, "shard": None} for row in metrics(compressed)]
    assert [{**row, "shard": None} for row in metrics(output)] == undisturbed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--quality", 2), "quality was 4, now 2"),
        (("--quality", 5), "the bundle serves 2, 4"),
        (("--qualty", 4), "--quality"),
        (("--gpus-per-worker", 99), "no room for a worker of 1 CPUs and 99 GPUs"),
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


def test_rows_of_parquet_files_are_compressed_with_what_is_beside_their_images(
    photographs: Path, tiny_bundle: Path, tmp_path: Path, cluster: str
) -> None:
    images = [(photographs / name).read_bytes() for name in ("0.png", "text.jpg", "2.webp")]
    table = pa.table({"image": [*images, None], "id": list("wxyz"), "label": pa.array([3, 2, 1, 0], pa.int8())})
    for name, rows in (("0", table[:2]), ("1", table[2:])):
        (tmp_path / "in").mkdir(exist_ok=True)
        pq.write_table(rows, tmp_path / "in" / f"{name}.parquet")
    arguments = ("--input", f"{tmp_path}/in/*.parquet", "--output", tmp_path / "out", "--bundle", tiny_bundle)
    done = run("compress_dataset", *arguments, "--key-column", "id", RAY_ADDRESS=cluster)
    assert done.returncode == 3, done.stderr
    statuses = {row["key"]: row["status"] for row in metrics(tmp_path / "out")}
    assert statuses == {"w": "ok", "x": "not_an_image", "y": "ok", "z": "no_image"}
    (path,) = (tmp_path / "out" / "bitstreams").iterdir()
    assert pq.read_table(path, columns=["key", "carried"]).to_pylist() == [
        {"key": "w", "carried": {"id": "w", "label": 3}},
        {"key": "y", "carried": {"id": "y", "label": 1}},
    ]
    again = run("compress_dataset", *arguments, "--image-column", "image")
    assert again.returncode == 2
    assert "image_column was None, now image; key_column was id, now None" in again.stderr
