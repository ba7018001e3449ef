"""Memory of the driver and of a worker while the compress job does few and many images.

    python -m benchmarks.memory

Small generated images, one worker; peaks of the resident memory of both processes, looked at twice a second. Writes
benchmarks/results/memory.json.
"""

import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from PIL import Image

from benchmarks.provenance import write_result

JOB = Path(__file__).parent.parent / "jobs" / "compress_dataset.py"


@dataclass(frozen=True)
class Memory:
    """Run the job on sets of two sizes."""

    sizes: tuple[int, ...] = (1000, 50_000)
    side: int = 32
    """Side of the images, in pixels."""


def main(config: Memory) -> None:
    """Run the job on each set, print and write the peaks."""
    result: dict[str, float] = {"side": config.side}
    with tempfile.TemporaryDirectory() as folder:
        for size in config.sizes:
            images = Path(folder, f"{size}")
            _generate(images, size, config.side)
            peaks, seconds = _peaks(images, Path(folder, f"out-{size}"))
            result[f"{size}_images_seconds"] = seconds
            for process, num_bytes in peaks.items():
                result[f"{size}_images_{process}_peak_mb"] = num_bytes / 1e6
    for key, value in result.items():
        print(f"{key:40} {value:.4g}")
    print(write_result("memory", dict(result)))


def _generate(folder: Path, size: int, side: int) -> None:
    folder.mkdir()
    generator = np.random.default_rng(0)
    for index in range(size):
        corners = Image.fromarray(generator.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        corners.resize((side, side), Image.Resampling.BICUBIC).save(folder / f"{index:06d}.png", compress_level=1)


def _peaks(images: Path, output: Path) -> tuple[dict[str, int], float]:
    """Return the highest resident memory of driver and worker, in bytes, and the seconds of the job."""
    command = [sys.executable, JOB, "--input", images, "--output", output, "--num-workers", "1"]
    start = time.perf_counter()
    peaks = {"driver": 0, "worker": 0}
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL) as job:
        while job.poll() is None:
            for process in Path("/proc").glob("[0-9]*"):
                try:
                    name = (process / "cmdline").read_text().partition("\0")[0]
                    kind = "driver" if process.name == str(job.pid) else "worker" if "ray::_Host" in name else None
                    if kind is not None:
                        num_pages = int((process / "statm").read_text().split()[1])
                        peaks[kind] = max(peaks[kind], 4096 * num_pages)
                except (FileNotFoundError, ProcessLookupError):  # it has just ended
                    continue
            time.sleep(0.5)
        if job.returncode != 0:
            raise SystemExit(f"the job failed with {job.returncode}")
    return peaks, time.perf_counter() - start


if __name__ == "__main__":
    main(tyro.cli(Memory))
