"""The jobs as functions in a process that uses Ray already, as a notebook does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.datasets import pixels

pytestmark = pytest.mark.integration

NOTEBOOK = """
import sys
import ray
import pipeline

images, output, bundle = sys.argv[1:]
ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
first = pipeline.compress_dataset(images, output, bundle=bundle, num_workers=1, shard_size=2)
assert (first.total.num_images, first.added.num_images, first.num_left) == (4, 4, 0), first
again = pipeline.compress_dataset(images, output, bundle=bundle, num_workers=1, shard_size=2)
assert (again.total.num_images, again.added.num_images) == (4, 0), again
assert ray.is_initialized() and ray.get(ray.remote(lambda: 7).remote()) == 7
"""


def test_a_ray_that_runs_is_used_and_left_running(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(4):
        Image.fromarray(pixels(40, 50, seed=number)).save(tmp_path / "in" / f"{number}.png")
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    command = [sys.executable, "-c", NOTEBOOK, str(tmp_path / "in"), str(tmp_path / "out"), str(tiny_bundle)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "starting Ray" not in ran.stderr
