"""The whole compress job against a bare loop of the same work in one process, on one worker and two.

    python -m benchmarks.whole_job --images FOLDER

The loop reads, decodes, compresses, decompresses and measures image by image with one thread: no Ray, no Parquet, no
overlap. The job's rate is taken between its first and its last commit, so that the start of Ray and of its workers,
which a large dataset pays once, stands apart. A worker alone lends its second thread a CPU that it was not given; so
each number of workers runs twice, the first time with all processes of the job on as many CPUs as workers. The profile
sums up what the rows of the one worker's metrics say of each stage; stages overlap, so they add up to more than the
time that passed. Writes benchmarks/results/whole_job.json.
"""

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
import tyro

from benchmarks.provenance import write_result
from benchmarks.timing import images_per_second
from bls.bitstream import MAX_PIXELS
from bls.codec import Codec, make_header
from bls.entropy.coders import CODERS
from bls.measures import images as measures
from pipeline import images
from pipeline.sources.opening import open_source

JOB = Path(__file__).parent.parent / "jobs" / "compress_dataset.py"


@dataclass(frozen=True)
class WholeJob:
    """Time the compress job and a bare loop over the same images."""

    images: Path
    """Folder of images, some hundred of similar size."""
    quality: float = 4
    shard_size: int = 16


def main(config: WholeJob) -> None:
    """Time loop, one worker, two workers."""
    num_images, num_pixels, loop_seconds = _bare_loop(config)
    result: dict[str, float | int | str] = {
        "num_images": num_images,
        "megapixels": num_pixels / 1e6,
        "bare_loop_images_per_second": num_images / loop_seconds,
        "bare_loop_mp_per_second": num_pixels / loop_seconds / 1e6,
    }
    for num_workers in (1, 2):
        rate, _, _ = _job(config, num_workers, num_cpus=num_workers)
        result[f"job_{num_workers}_workers_on_as_many_cpus_images_per_second"] = rate
        rate, wall_seconds, stage_seconds = _job(config, num_workers)
        result[f"job_{num_workers}_workers_images_per_second"] = rate
        result[f"job_{num_workers}_workers_wall_seconds"] = wall_seconds
        result[f"job_{num_workers}_workers_to_bare_loop"] = rate * loop_seconds / num_images
        if num_workers == 1:
            for name, seconds in stage_seconds.items():
                result[f"{name}_per_megapixel"] = seconds / num_pixels * 1e6
                result[f"{name}_share"] = seconds / sum(stage_seconds.values())
    for kind in ("images_per_second", "on_as_many_cpus_images_per_second"):
        one, two = (float(result[f"job_{num_workers}_workers_{kind}"]) for num_workers in (1, 2))
        result[f"two_workers_to_one_{kind}"] = two / one
    for key, value in result.items():
        print(f"{key:40} {value:.4g}")
    print(write_result("whole_job", result))


def _bare_loop(config: WholeJob) -> tuple[int, int, float]:
    """Return images, pixels and seconds of the work that the job does, in the plainest form."""
    torch.set_num_threads(1)
    codec = Codec.load()
    source = open_source(str(config.images))
    references = list(source.references())
    num_pixels = 0
    for warm_up in (True, False):
        start = time.perf_counter()
        for reference in references[:2] if warm_up else references:
            x = images.decode(source.read(reference), max_pixels=MAX_PIXELS).pixels
            (symbols,) = codec.analyze([x], quality=config.quality)
            header = make_header(x, quality=config.quality, coder=CODERS[0])
            bitstream = codec.encode(symbols, header=header)
            x_hat = codec.decompress(bitstream)
            measures.mse_255(x, x_hat)
            measures.ms_ssim(x, x_hat)
            codec.estimate_bits(symbols, quality=config.quality)
            num_pixels += 0 if warm_up else x.shape[0] * x.shape[1]
    return len(references), num_pixels, time.perf_counter() - start


def _job(config: WholeJob, num_workers: int, *, num_cpus: int | None = None) -> tuple[float, float, dict[str, float]]:
    """Return the job's images per second between its first and last commit, its whole wall time, and the sum of each
    stage's seconds."""
    with tempfile.TemporaryDirectory() as output:
        command = [sys.executable, JOB, "--input", config.images, "--output", output, "--quality", config.quality]
        command += ["--num-workers", num_workers, "--shard-size", config.shard_size]
        start = time.perf_counter()
        cpus = sorted(os.sched_getaffinity(0))[:num_cpus]
        pin = partial(os.sched_setaffinity, 0, cpus)
        subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL, preexec_fn=pin)
        wall_seconds = time.perf_counter() - start
        metrics = pq.read_table(Path(output, "metrics"))
        stages = [name for name in metrics.column_names if name.endswith("_seconds")]
        stage_seconds = {name: pc.sum(metrics[name]).as_py() for name in stages}
        return images_per_second(Path(output)), wall_seconds, stage_seconds


if __name__ == "__main__":
    main(tyro.cli(WholeJob))
