"""Appending on Ray: killed in the middle and given again, and two at once."""

import os
import signal
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.ledger.output import Output
from tests.datasets import pixels
from tests.jobs import job, run, wait_until

pytestmark = pytest.mark.integration


def add(photographs: Path, *seeds: int) -> None:
    photographs.mkdir(exist_ok=True)
    for seed in seeds:
        Image.fromarray(pixels(32 + seed, 40, seed=seed)).save(photographs / f"{seed:02d}.png")


def keys(output: Path, kind: str) -> list[str]:
    files = [output / marker.files[kind].name for marker in Output(str(output)).markers()]
    assert sorted(files) == sorted((output / kind).iterdir()), "nothing is left over"
    return sorted(key for file in files for key in pq.read_table(file)["key"].to_pylist())


@pytest.mark.slow
def test_an_append_that_is_killed_and_two_at_once_leave_each_image_once(
    tmp_path: Path, tiny_bundle: Path, cluster: str
) -> None:
    photographs, output = tmp_path / "photographs", tmp_path / "compressed"
    options = ("--bundle", tiny_bundle, "--num-workers", 1, "--shard-size", 2)
    append = ("compress_dataset", "--input", photographs, "--output", output, "--append", *options)
    environment = {**os.environ, "RAY_ADDRESS": cluster}
    add(photographs, *range(1, 9, 2))
    assert run(*append, RAY_ADDRESS=cluster).returncode == 0
    first = Output(str(output)).markers()

    add(photographs, *range(0, 24, 2))
    with subprocess.Popen(job(*append), env=environment) as process:
        try:
            wait_until(
                lambda: process.poll() is not None or len(Output(str(output)).committed()) > 2, "an appended shard"
            )
        finally:
            process.kill()
    assert process.returncode == -signal.SIGKILL

    add(photographs, *range(24))
    both = [subprocess.Popen(job(*append), env=environment, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for each in both:
        _, errors = each.communicate(timeout=600)
        assert each.returncode == 0, errors
    markers = Output(str(output)).markers()
    assert markers[:2] == first
    for kind in ("metrics", "bitstreams"):
        assert keys(output, kind) == [f"{seed:02d}.png" for seed in range(24)]
    assert run("verify_dataset", "--input", output, "--decode", *options[:4], RAY_ADDRESS=cluster).returncode == 0
