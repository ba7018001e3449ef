"""What is left when something dies: a real cluster of three nodes, jobs as their users run them, and real faults.

After each, every input is once in committed metrics, and rows and bitstreams are those of an undisturbed run.
"""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image
from ray.cluster_utils import Cluster

from pipeline.ledger.output import Output
from tests.images import random_fields
from tests.jobs import committed_rows

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
NUM_IMAGES, SHARD_SIZE = 12, 2
PASSWORD, KEY_ID, SECRET = "swordfish", "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMIbPxRfiCYEXAMPLEKEY"

Process = subprocess.Popen[str]


@dataclass
class Stage:
    """A cluster, images on a file system that can be told to fail, and the jobs that compress them."""

    folder: Path
    bundle: Path
    cluster: Cluster
    ray_folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def faults(self) -> Path:
        return self.folder / "faults"

    def command(self, output: Path, *arguments: object) -> list[str]:
        photographs = f"faulty://me:{PASSWORD}@host{self.folder}/photographs"
        command = ["--input", photographs, "--output", output, "--bundle", self.bundle, "--shard-size", SHARD_SIZE]
        return [sys.executable, str(ROOT / "jobs" / "compress_dataset.py"), *map(str, (*command, *arguments))]

    def run(self, output: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
        with self.running(output, *arguments) as process:
            out, errors = process.communicate(timeout=300)
        return subprocess.CompletedProcess(process.args, process.returncode, out, errors)

    @contextmanager
    def running(self, output: Path, *arguments: object, **environment: str) -> Iterator[Process]:
        """Start a job, for the caller to end; the faults end with it."""
        with subprocess.Popen(
            self.command(output, *arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, **self.environment, **environment},
        ) as process:
            try:
                yield process
            finally:
                process.kill()
                process.wait()
                # Workers outlive their driver by moments: an image that is held must not be let go meanwhile.
                wait_until(
                    lambda: not any(Path(f"/proc/{pid}").exists() for pid in self.reached("*")), "workers to end"
                )
                for path in self.faults.iterdir():
                    path.unlink()

    def tell(self, fault: str, message: str = "") -> None:
        (self.faults / fault).write_text(message)

    def reached(self, name: str) -> list[int]:
        """Return the processes that have read an image, or listed a folder; a pattern stands for several."""
        return [int(path.name.rpartition("-")[2]) for path in self.faults.glob(f"reached-{name}-*")]


def wait_until(condition: Callable[[], object], what: str, *, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def wait_for_line(process: Process, line: str) -> None:
    assert process.stderr is not None
    timer = threading.Timer(240, process.kill)
    timer.start()
    lines = list(takewhile(lambda text: text != f"{line}\n", process.stderr))
    timer.cancel()
    assert process.poll() is None, lines


def num_commits(output: Path) -> int:
    return len(list((output / "commits").glob("shard-*.json")))


def check_whole(output: Path, undisturbed: Path) -> None:
    """Assert that a finished output is that of an undisturbed run, with no file that does not count."""
    assert committed_rows(output) == committed_rows(undisturbed)
    for kind in ("metrics", "bitstreams"):
        files = {marker.files[kind].name for marker in Output(str(output)).markers()}
        assert {f"{kind}/{path.name}" for path in (output / kind).iterdir()} == files


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("stage")
    for name in ("photographs", "faults", "plugin/faulty-1.dist-info"):
        (folder / name).mkdir(parents=True)
    # Every process that imports fsspec finds the file system by this.
    (folder / "plugin/faulty-1.dist-info/METADATA").write_text("Name: faulty\nVersion: 1\n")
    entry = "[fsspec.specs]\nfaulty = tests.faulty_filesystem:FaultyFileSystem\n"
    (folder / "plugin/faulty-1.dist-info/entry_points.txt").write_text(entry)
    for index, pixels in enumerate((random_fields(NUM_IMAGES, 208, seed=2) * 255).round().byte()):
        # Each of another size: images of one size are transformed together, and round as their company is.
        image = Image.fromarray(pixels[:, : 16 * index + 16, :40].permute(1, 2, 0).numpy())
        image.save(folder / "photographs" / f"{index:02}.png")
    (folder / "photographs" / "05.png").write_bytes(b"")
    environment = {
        "PYTHONPATH": os.pathsep.join(filter(None, (str(folder / "plugin"), str(ROOT), os.environ.get("PYTHONPATH")))),
        "BLS_TEST_FAULTS": str(folder / "faults"),
    }
    # Sockets need short paths, and other people's Ray is not to find this one.
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as ray_folder:
        for name, value in {**environment, "RAY_TMPDIR": ray_folder}.items():
            patch.setenv(name, value)
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        try:
            for _ in range(2):
                cluster.add_node(num_cpus=1)
            yield Stage(folder, tiny_bundle, cluster, Path(ray_folder), {"RAY_ADDRESS": cluster.address})
        finally:
            cluster.shutdown()


@pytest.fixture(scope="module")
def undisturbed(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("undisturbed")
    done = stage.run(output)
    assert done.returncode == 3, done.stderr
    rows = committed_rows(output)
    names = [f"{index:02}.png" for index in range(NUM_IMAGES)]
    assert [row["key"] for row in rows["metrics"]] == names
    assert [row["key"] for row in rows["bitstreams"]] == [name for name in names if name != "05.png"]
    return output


def test_a_driver_that_is_killed_again_and_again(stage: Stage, undisturbed: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"

    def kill_when(condition: Callable[[], object], what: str) -> None:
        with stage.running(output, "--num-workers", 1) as process:
            wait_until(condition, what)
            process.kill()
            process.wait()
        assert process.returncode == -signal.SIGKILL

    stage.tell("wait-photographs")
    kill_when(lambda: stage.reached("photographs"), "the listing")
    assert not [path for path in output.rglob("*") if path.is_file()]

    stage.tell("wait-00.png")
    kill_when(lambda: stage.reached("00.png"), "the first image")
    assert (output / "manifest.json").exists() and num_commits(output) == 0

    stage.tell("wait-06.png")
    kill_when(lambda: num_commits(output) == 3 and stage.reached("06.png"), "the fourth shard")
    assert committed_rows(output)["metrics"] == committed_rows(undisturbed)["metrics"][: 3 * SHARD_SIZE]

    done = stage.run(output)
    assert done.returncode == 3, done.stderr
    assert f"{3 * SHARD_SIZE} of {NUM_IMAGES} images are compressed already" in done.stderr
    check_whole(output, undisturbed)


def test_a_worker_that_is_killed_accuses_no_image(stage: Stage, undisturbed: Path, tmp_path: Path) -> None:
    stage.tell("wait-04.png")
    with stage.running(tmp_path, "--num-workers", 2) as process:
        wait_until(lambda: stage.reached("04.png"), "a worker")
        (worker,) = stage.reached("04.png")
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: len(stage.reached("04.png")) == 2, "another worker")
        (stage.faults / "wait-04.png").unlink()
        _, errors = process.communicate(timeout=240)
    assert process.returncode == 3, errors
    check_whole(tmp_path, undisturbed)


@pytest.mark.slow
def test_an_image_that_kills_is_alone_and_a_retry_brings_it_back(
    stage: Stage, undisturbed: Path, tmp_path: Path
) -> None:
    """By a fault in native code; the retry is killed half-way, too, and then comes to its end."""
    stage.tell("die-07.png")
    with stage.running(tmp_path) as process:
        _, errors = process.communicate(timeout=240)
    assert process.returncode == 3, errors
    before = committed_rows(tmp_path)
    statuses = {row["key"]: row["status"] for row in before["metrics"]}
    assert {key: status for key, status in statuses.items() if status != "ok"} == {
        "05.png": "empty",
        "07.png": "crashed",
    }
    assert len(before["bitstreams"]) == NUM_IMAGES - 2

    stage.tell("wait-07.png")
    with stage.running(tmp_path, "--retry-quarantined") as process:
        wait_until(lambda: stage.reached("07.png"), "the retry")
        process.kill()
        process.wait()
    # A retry of the other shard may have come to its end, and again found nothing.
    assert committed_rows(tmp_path) == before

    done = stage.run(tmp_path, "--retry-quarantined")
    assert done.returncode == 3, done.stderr
    assert "2 shards are done again, 2 of their images were quarantined" in done.stderr
    check_whole(tmp_path, undisturbed)


def test_two_jobs_on_one_output(stage: Stage, undisturbed: Path, tmp_path: Path) -> None:
    stage.tell("wait-all")
    with stage.running(tmp_path, "--num-workers", 1) as first, stage.running(tmp_path, "--num-workers", 1) as second:
        # Both hold images of the first shard, and none is committed.
        wait_until(lambda: len(stage.reached("00.png")) == 2, "two workers")
        (stage.faults / "wait-all").unlink()
        ends = [process.communicate(timeout=240) for process in (first, second)]
    assert (first.returncode, second.returncode) == (3, 3), ends
    check_whole(tmp_path, undisturbed)


@pytest.mark.slow
def test_ctrl_c_finishes_what_runs_and_a_second_one_does_not(stage: Stage, undisturbed: Path, tmp_path: Path) -> None:
    """In a terminal, where it comes to all processes of the job; its Ray is its own."""
    own_ray = {"RAY_ADDRESS": ""}
    stage.tell("wait-04.png")
    with stage.running(tmp_path, "--num-workers", 1, **own_ray) as process:
        wait_until(lambda: stage.reached("04.png"), "the third shard")
        os.killpg(process.pid, signal.SIGINT)
        wait_for_line(process, "finishing 1 running shard; press Ctrl-C again to stop at once")
        (stage.faults / "wait-04.png").unlink()
        out, errors = process.communicate(timeout=240)
    assert process.returncode == 1
    assert errors.endswith("are left. What is committed stays: the same command goes on from there.\n")
    assert num_commits(tmp_path) == 3 and "5 compressed, 1 quarantined" in out
    assert committed_rows(tmp_path)["metrics"] == committed_rows(undisturbed)["metrics"][:6]

    stage.tell("wait-08.png")
    with stage.running(tmp_path, "--num-workers", 1, **own_ray) as process:
        wait_until(lambda: stage.reached("08.png"), "the fifth shard")
        process.terminate()
        wait_for_line(process, "finishing 1 running shard; press Ctrl-C again to stop at once")
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=240)
        assert (stage.faults / "wait-08.png").exists()
    assert process.returncode == 1
    assert errors.endswith("are left. What is committed stays: the same command goes on from there.\n")
    assert num_commits(tmp_path) == 4

    assert stage.run(tmp_path).returncode == 3
    check_whole(tmp_path, undisturbed)


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Callable[[str], None]]:
    """Mount a file system in memory; yield a call that mounts it again with other options."""
    folder.mkdir()

    def mount(options: str) -> subprocess.CompletedProcess[bytes]:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        return subprocess.run(command, capture_output=True)

    try:
        done = mount(options)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode:
        pytest.skip(f"this user may not mount a file system: {done.stderr.decode().strip()}")
    try:
        yield lambda options: mount(f"remount,{options}").check_returncode()
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.slow
def test_a_full_and_a_read_only_disk(stage: Stage, undisturbed: Path, tmp_path: Path) -> None:
    output = tmp_path / "disk"
    with mounted(output, "size=96k") as mount_again:
        done = stage.run(output)
        assert done.returncode == 1
        assert "No space left on device" in done.stderr and "the same command goes on from there" in done.stderr
        assert 0 < num_commits(output) < NUM_IMAGES // SHARD_SIZE

        mount_again("size=4m,ro")
        done = stage.run(output)
        assert done.returncode == 1
        assert "Read-only file system" in done.stderr and "the same command goes on from there" in done.stderr

        mount_again("size=4m,rw")
        assert stage.run(output).returncode == 3
        check_whole(output, undisturbed)


def test_no_credentials_are_left_anywhere(stage: Stage, tmp_path: Path) -> None:
    """In anything that a job writes or prints, whatever the errors of its storage say."""
    stage.tell(
        "fail-03.png",
        f"https://me:{PASSWORD}@host/03.png?X-Amz-Credential={KEY_ID}%2Fus&X-Amz-Signature={SECRET}: denied to "
        f"<AWSAccessKeyId>{KEY_ID}</AWSAccessKeyId>, aws_secret_access_key={SECRET}",
    )
    with stage.running(tmp_path) as process:
        texts = list(process.communicate(timeout=240))
    assert process.returncode == 3, texts
    (row,) = [row for row in committed_rows(tmp_path)["metrics"] if row["status"] == "unreadable"]
    assert "denied" in row["error_message"] and row["source_uri"].startswith("faulty://host/")
    for path in tmp_path.rglob("*.parquet"):
        table = pq.read_table(path)
        texts.append(f"{table.to_pylist()} {table.schema.metadata} {path.read_bytes()!r}")
    logs = [path for path in stage.ray_folder.glob("ray/session_2*/logs/**/*") if path.is_file()]
    assert logs
    texts += [path.read_text(errors="replace") for path in (*tmp_path.rglob("*.json"), *logs)]
    assert [text[:200] for text in texts if any(word in text for word in (PASSWORD, KEY_ID, SECRET))] == []


@pytest.mark.slow
def test_a_node_that_dies_takes_no_image_along(stage: Stage, undisturbed: Path, tmp_path: Path) -> None:
    """Last, as the cluster is not what it was."""
    stage.tell("wait-all")
    with stage.running(tmp_path) as process:
        wait_until(lambda: len(set(stage.reached("*.png"))) == 3, "a worker on each node")
        stage.cluster.remove_node(next(iter(stage.cluster.worker_nodes)), allow_graceful=False)
        (stage.faults / "wait-all").unlink()
        _, errors = process.communicate(timeout=300)
    assert process.returncode == 3, errors
    check_whole(tmp_path, undisturbed)
