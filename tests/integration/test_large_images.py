"""An image of 100 megapixels passes through a worker in bounded memory."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import resource, sys
from pipeline.compress.worker import CompressionConfig, ShardCompressor
from pipeline.ledger.shard import Shard
from pipeline.sources.opening import open_source
from pipeline.work.codec import CodecSpec

source, output = sys.argv[1:]
config = CompressionConfig(source, output, CodecSpec.of(None, 8))  # of the most latents
worker = ShardCompressor(config)
resting = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
marker = worker.run(Shard(0, tuple(open_source(source).references())))
assert not marker.summary.quarantined, marker.summary
print(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - resting), marker.summary.num_pixels)
"""
GENERATE = """
import sys
from PIL import Image
from skimage import data
Image.fromarray(data.astronaut()).resize((10_000, 10_000), Image.Resampling.BICUBIC).save(sys.argv[1])
"""


@pytest.mark.integration
@pytest.mark.slow
def test_100_megapixels_take_less_than_2_gb_above_the_resting_worker(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    subprocess.run([sys.executable, "-c", GENERATE, tmp_path / "in" / "large.jpg"], check=True)
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "in"), str(tmp_path / "out")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    num_bytes, num_pixels = map(int, done.stdout.split())
    assert num_pixels == 100_000_000
    assert num_bytes < 2e9
