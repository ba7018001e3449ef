"""Recoding on Ray, killed in the middle and given again."""

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


@pytest.mark.slow
def test_a_killed_job_goes_on_and_every_image_is_in_the_copy_once(
    tmp_path: Path, tiny_bundle: Path, cluster: str
) -> None:
    photographs, output, copy = (tmp_path / name for name in ("photographs", "compressed", "copy"))
    photographs.mkdir()
    for seed in range(24):
        Image.fromarray(pixels(32 + seed, 40, seed=seed)).save(photographs / f"{seed:02d}.png")
    options = ("--bundle", tiny_bundle, "--num-workers", 2)
    compress = ("compress_dataset", "--input", photographs, "--output", output, "--shard-size", 2, *options)
    assert run(*compress, RAY_ADDRESS=cluster).returncode == 0

    recode = ("recode_dataset", "--input", output, "--output", copy, "--coder", "adaptive", *options)
    with subprocess.Popen(job(*recode), env={**os.environ, "RAY_ADDRESS": cluster}) as process:
        try:
            wait_until(lambda: process.poll() is not None or bool(Output(str(copy)).committed()), "a first shard")
        finally:
            process.kill()
    assert process.returncode == -signal.SIGKILL
    first = Output(str(copy)).markers()[0]
    done = run(*recode, RAY_ADDRESS=cluster)
    assert done.returncode == 0, done.stderr
    assert "24 recoded, 0 quarantined" in done.stdout
    markers = Output(str(copy)).markers()
    assert len(markers) == 12 and first in markers
    for kind in ("metrics", "bitstreams"):
        keys = [key for marker in markers for key in pq.read_table(copy / marker.files[kind].name)["key"].to_pylist()]
        assert sorted(keys) == [f"{seed:02d}.png" for seed in range(24)]
        assert len(list((copy / kind).iterdir())) == 12
    assert run("verify_dataset", "--input", copy, "--decode", *options, RAY_ADDRESS=cluster).returncode == 0
