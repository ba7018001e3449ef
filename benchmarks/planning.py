"""Planning, resuming and appending with many inputs: CPU seconds per 100,000 and how the driver's memory grows.

    python -m benchmarks.planning

The inputs are made up as they are listed, so that what is measured is ours and not a file system's. Each number is of a
process of its own. Writes benchmarks/results/planning.json.
"""

import resource
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa
import tyro

from benchmarks.provenance import write_result
from benchmarks.timing import in_a_process
from pipeline.ledger.append import append_plan
from pipeline.ledger.manifest import Manifest
from pipeline.ledger.output import Output
from pipeline.ledger.plan import freeze_plan, planned_shards
from pipeline.sources.reference import ImageReference, Sample


@dataclass(frozen=True)
class Planning:
    """Time plans of made-up inputs, and what a rerun and an append do with them before their first shard."""

    num_images: tuple[int, ...] = (100_000, 1_000_000, 10_000_000)


@dataclass
class MadeUp:
    """`num_images` images in folders of a thousand."""

    num_images: int
    skipped: Counter[str] = field(default_factory=Counter)
    carried: pa.DataType | None = None

    def references(self) -> Iterator[ImageReference]:
        """List them."""
        for index in range(self.num_images):
            stem = f"{index // 1000:06d}/photograph-{index:09d}"
            yield ImageReference(f"{stem}.jpg", f"s3://bucket/photographs/{stem}.jpg", stem)

    def read(self, reference: ImageReference) -> bytes:
        """Refuse: there are none."""
        raise FileNotFoundError(reference.source_uri)

    def read_sample(self, reference: ImageReference) -> Sample:
        """Refuse: there are none."""
        raise FileNotFoundError(reference.source_uri)


def main(config: Planning) -> None:
    """Measure each size, planned and resumed."""
    result: dict[str, float] = {}
    for num_images in config.num_images:
        with tempfile.TemporaryDirectory() as folder:
            for name, step in (("plan", plan), ("resume", resume), ("append", append)):
                seconds, growth = in_a_process(_measure, step, num_images, folder)
                result[f"{name}_{num_images}_cpu_seconds_per_100000"] = seconds * 100_000 / num_images
                result[f"{name}_{num_images}_peak_growth_mib"] = growth / 2**20
    for key, value in result.items():
        print(f"{key:46} {value:.4g}")
    print(write_result("planning", result))


def plan(num_images: int, folder: str) -> Manifest:
    """Write the plan of an output."""
    return freeze_plan(
        Output(folder), MadeUp(num_images), begun=Manifest("benchmark"), shard_size=128, num_workers=lambda: 2
    )


def resume(num_images: int, folder: str) -> Manifest:
    """Check that the inputs are the same, and read the plan; all but its last shard are done."""
    manifest = plan(num_images, folder)
    (last,) = planned_shards(Output(folder), manifest, skip=set(range(manifest.num_shards - 1)))
    assert last.index == manifest.num_shards - 1
    return manifest


def append(num_images: int, folder: str) -> Manifest:
    """Find one new input among all, which are planned already, and append it."""
    if Output(folder).manifest() is None:
        plan(num_images, folder)
    manifest, compared = append_plan(
        Output(folder), MadeUp(num_images + 1), begun=Manifest("benchmark"), shard_size=128, num_workers=lambda: 2
    )
    assert compared.num_new == 1
    return replace(manifest, plans=manifest.plans[:1])


def _measure(step: Callable[[int, str], Manifest], num_images: int, folder: str) -> tuple[float, float]:
    """Return seconds of CPU, and bytes by which the largest size of this process grew."""
    step(1000, str(Path(folder, f"warm-up-{step.__name__}")))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    manifest = step(num_images, str(Path(folder, "output")))
    seconds = time.process_time() - start
    assert manifest.num_images == num_images
    return seconds, 1024.0 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


if __name__ == "__main__":
    main(tyro.cli(Planning))
