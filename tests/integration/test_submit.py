"""The job as it is submitted to a cluster: a head node, a working directory, S3 in and out, metrics of Ray."""

import io
import os
import re
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.images import random_fields
from tests.jobs import ROOT, started_under, wait_until
from tests.storage_server import BUCKET, StorageServer, free_ports

pytest.importorskip("aiohttp_cors", reason="the dashboard that takes jobs is not there: pip install 'ray[default]'")
pytestmark = [pytest.mark.integration, pytest.mark.slow]

RAY = Path(sys.executable).with_name("ray")
NUM_IMAGES = 6


@dataclass(frozen=True)
class Head:
    """A head node, which takes jobs and exports metrics at these ports of 127.0.0.1."""

    dashboard_port: int
    metrics_port: int

    def metrics(self) -> dict[str, float]:
        """Return the samples of the project's metrics, named without their tags but for `status`."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=60) as answer:
            lines = answer.read().decode().splitlines()
        matches = (re.fullmatch(r"ray_(bls_\w+)\{(.*)\} (\S+)", line) for line in lines)
        return {f"{m[1]} {_tag('status', m[2])}".strip(): float(m[3]) for m in matches if m}


def _tag(name: str, tags: str) -> str:
    match = re.search(rf'\b{name}="(.*?)"', tags)
    return match[1] if match else ""


@pytest.fixture(scope="module")
def environment(storage: StorageServer) -> dict[str, str]:
    """Return the environment in which a node is started: its jobs inherit it."""
    bin_folder = str(Path(sys.executable).parent)  # `python` of a job is the one that is first on PATH
    path = f"{bin_folder}{os.pathsep}{os.environ['PATH']}"
    without = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "RAY_ADDRESS")}
    return {**without, **storage.environment, "PATH": path, "RAY_AUTH_MODE": "disabled"}


@pytest.fixture(scope="module")
def head(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """Start a head node with all of its ports on 127.0.0.1; in the end, end what it started and nothing else."""
    names = (
        *("port", "node-manager-port", "object-manager-port", "ray-client-server-port", "dashboard-port"),
        *("dashboard-agent-listen-port", "dashboard-agent-grpc-port", "runtime-env-agent-port", "metrics-export-port"),
    )
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    log = tmp_path_factory.mktemp("head") / "log"
    # Ray puts sockets there, whose paths must be short.
    with tempfile.TemporaryDirectory(prefix="bls-", ignore_cleanup_errors=True) as folder:
        command = [
            *(str(RAY), "start", "--head", "--block", "--node-ip-address=127.0.0.1", "--num-cpus=2"),
            *("--include-dashboard=true", "--dashboard-host=127.0.0.1", "--disable-usage-stats"),
            *(f"--temp-dir={folder}", *(f"--{name}={port}" for name, port in ports.items())),
        ]
        mark = f"BLS_TEST_MARK={folder}"
        with (
            log.open("w") as file,
            subprocess.Popen(
                command, stdout=file, stderr=file, env={**environment, "BLS_TEST_MARK": folder}
            ) as process,
        ):
            try:
                wait_until(lambda: "Ray runtime started" in log.read_text(), f"the head of {log}", seconds=180)
                yield Head(ports["dashboard-port"], ports["metrics-export-port"])
            finally:
                process.terminate()
        wait_until(lambda: not started_under(mark), f"the processes of Ray to end: {started_under(mark)}")


@pytest.fixture(scope="module")
def photographs(storage: StorageServer) -> str:
    fields = (random_fields(NUM_IMAGES, 32, seed=1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    for index, pixels in enumerate(fields):
        data = io.BytesIO()
        Image.fromarray(pixels).save(data, "png")
        storage.filesystem().pipe_file(f"{BUCKET}/to-submit/{index}.png", data.getvalue())
    return f"s3://{BUCKET}/to-submit"


def submit(head: Head, environment: dict[str, str], *entrypoint: str) -> subprocess.CompletedProcess[str]:
    address = f"http://127.0.0.1:{head.dashboard_port}"
    command = [str(RAY), "job", "submit", "--address", address, "--working-dir", ".", "--", *entrypoint]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=580)


def test_a_submitted_job_compresses_from_s3_to_s3(
    head: Head, storage: StorageServer, environment: dict[str, str], photographs: str
) -> None:
    output = f"s3://{BUCKET}/submitted"
    # The static coder needs no compilation, which every new copy of the working directory begins with.
    options = ["--coder", "static", "--num-workers", "1", "--shard-size", "2", "--log-json"]
    job = ("python", "jobs/compress_dataset.py", "--input", photographs, "--output", output, *options)
    done = submit(head, environment, *job)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"Job '\w+' succeeded", done.stdout)
    assert '"event": "done"' in done.stdout

    filesystem = storage.filesystem()
    files = filesystem.ls(f"{BUCKET}/submitted/metrics", detail=False)
    rows = [row for path in files for row in pq.read_table(pa.BufferReader(filesystem.cat_file(path))).to_pylist()]
    assert sorted((row["key"], row["verified"]) for row in rows) == [(f"{n}.png", True) for n in range(NUM_IMAGES)]

    def is_exported() -> bool:
        metrics = head.metrics()
        return metrics.get("bls_images_total ok") == NUM_IMAGES and metrics.get("bls_shards_total") == NUM_IMAGES / 2

    wait_until(is_exported, f"the node to export what was counted: {head.metrics()}", seconds=60)
    assert head.metrics()["bls_bytes_out_total"] == sum(row["num_bytes"] for row in rows)


def test_a_submitted_job_with_quarantined_images_fails_unless_they_are_accepted(
    head: Head, storage: StorageServer, environment: dict[str, str]
) -> None:
    folder, output = f"s3://{BUCKET}/broken", f"s3://{BUCKET}/quarantined"
    storage.filesystem().pipe_file(f"{BUCKET}/broken/0.png", b"no image")
    options = ["--coder", "static", "--num-workers", "1"]
    job = ("python", "jobs/compress_dataset.py", "--input", folder, "--output", output, *options)
    failed = submit(head, environment, *job)
    assert failed.returncode == 1 and re.search(r"Job '\w+' failed", failed.stdout), failed.stdout + failed.stderr
    accepted = submit(head, environment, "deploy/accept_quarantined.sh", *job)
    assert accepted.returncode == 0, accepted.stdout + accepted.stderr
    assert "exit code 3, done with quarantined images" in accepted.stdout
