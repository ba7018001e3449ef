"""What huge pages are worth: page faults and speed of the codec with and without, on one thread.

    python -m benchmarks.page_faults --images KODAK

Every measurement is a process of its own, as it depends on where a process's memory lies. Writes
benchmarks/results/page_faults.json.
"""

import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
import tyro
from PIL import Image

from benchmarks.provenance import write_result
from benchmarks.timing import in_a_process
from bls.codec import Codec
from bls.transforms.precision import Precision

QUALITY = 4
SIDES = {"kodak": 0, "1024": 1024}
"""The coded images: those of the folder as they are, and one of this side, patched together from them."""


@dataclass(frozen=True)
class PageFaults:
    """Time the codec in several processes, with huge pages and without."""

    images: Path
    """Folder of PNG images of one size, upright or not."""
    processes: int = 3
    """Processes of each kind, in turns."""


def main(config: PageFaults) -> None:
    """Measure, print and write all of it."""
    result: dict[str, object] = {}
    for name, side in SIDES.items():
        for precision in ("auto", "float32"):
            runs: dict[str, list[dict[str, float]]] = {"huge_pages": [], "small_pages": []}
            for _ in range(config.processes):
                for kind, enabled in (("huge_pages", "1"), ("small_pages", "0")):
                    os.environ["THP_MEM_ALLOC_ENABLE"] = enabled  # inherited
                    runs[kind].append(in_a_process(measure, config.images, side, precision))
            for kind, measured in runs.items():
                for key in measured[0]:
                    values = [m[key] for m in measured]
                    result[f"{name}_{precision}_{kind}_{key}"] = values
                    print(f"{name:6} {precision:8} {kind:11} {key:30} {' '.join(f'{v:10.4g}' for v in values)}")
    print(write_result("page_faults", result))


def measure(folder: Path, side: int, precision: Precision) -> dict[str, float]:
    """Return speed and page faults in this process."""
    torch.set_num_threads(1)
    images = [np.array(Image.open(path).convert("RGB")) for path in sorted(folder.glob("*.png"))]
    if side:
        upright = [x if x.shape[0] < x.shape[1] else x.transpose(1, 0, 2) for x in images]
        mosaic = np.concatenate([np.concatenate(upright[i : i + 4], 1) for i in range(0, 12, 4)], 0)
        images = [np.ascontiguousarray(mosaic[:side, :side])]
    megapixels = sum(x[..., 0].size for x in images) / 1e6
    codec = Codec.load(precision=precision)
    speeds, faults = [], []
    for _ in range(4):
        before, start = _faults(), time.perf_counter()
        data = [codec.compress(x, quality=QUALITY) for x in images]
        middle, compressed = time.perf_counter(), _faults()
        for bitstream in data:
            codec.decompress(bitstream)
        speeds.append((megapixels / (middle - start), megapixels / (time.perf_counter() - middle)))
        faults.append(((compressed - before) / megapixels, (_faults() - compressed) / megapixels))
    (compress, decompress), (of_compress, of_decompress) = (
        [median(values) for values in zip(*rows[1:], strict=True)] for rows in (speeds, faults)
    )
    return {
        "compress_mp_per_second": compress,
        "decompress_mp_per_second": decompress,
        "compress_faults_per_mp": of_compress,
        "decompress_faults_per_mp": of_decompress,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


if __name__ == "__main__":
    main(tyro.cli(PageFaults))
