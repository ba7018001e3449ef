"""What the driver of a job costs per shard: workers do nothing but commit, so that what takes time is ours or Ray's.

    python -m benchmarks.driver

Made-up shards of made-up images go through `pipeline.cluster.run.run_to_end` as those of a real job would, markers on
a local disk; then the job runs again and finds everything done. CPU seconds are those of the driver's process, Ray's
threads in it included. Each run has a process of its own. Writes benchmarks/results/driver.json.
"""

import resource
import tempfile
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import tyro

from benchmarks.planning import MadeUp
from benchmarks.provenance import write_result
from benchmarks.timing import in_a_process
from pipeline.cluster.cluster import Cluster
from pipeline.cluster.run import Work, run_to_end
from pipeline.ledger.manifest import Manifest, Plan
from pipeline.ledger.markers import Marker
from pipeline.ledger.output import Output
from pipeline.ledger.shard import Shard
from pipeline.ledger.summary import Mean, Summary
from pipeline.report.charts import STAGES


@dataclass(frozen=True)
class Driver:
    """Run jobs of empty shards."""

    num_shards: tuple[int, ...] = (20_000, 20_000, 20_000, 1_000_000)
    """Number of shards of each run."""
    num_workers: tuple[int, ...] = (2, 16, 64, 2)
    """Number of workers of each run; all are on this machine, whatever its CPUs."""
    shard_size: int = 128


def main(config: Driver) -> None:
    """Measure each run, print and write what it cost."""
    rows: list[dict[str, float]] = []
    for num_shards, num_workers in zip(config.num_shards, config.num_workers, strict=True):
        rows.append({"num_shards": num_shards, "num_workers": num_workers})
        with tempfile.TemporaryDirectory() as folder:
            for name in ("run", "rerun"):
                measured = in_a_process(_measure, folder, num_shards, num_workers, config.shard_size)
                for key, value in measured.items():
                    rows[-1][f"{name}_{key}"] = value
        for key, value in rows[-1].items():
            print(f"{key:32} {value:.6g}")
        print(write_result("driver", {"shard_size": config.shard_size, "runs": rows}))


class EmptyWorker:
    """Commits shards without looking at them."""

    def __init__(self, output: str) -> None:
        self._output = Output(output)

    def run(self, shard: Shard, *, crashed: Collection[int] = ()) -> Marker:
        """Commit."""
        num_images = len(shard.items)
        mean = Mean(num_images / 2, num_images)
        stage_seconds = dict.fromkeys(STAGES, 0.1)
        sizes = (num_images, num_images, num_images, num_images)
        summary = Summary(num_images, {}, {}, *sizes, mean, mean, mean, stage_seconds=stage_seconds)
        return self._output.commit(shard.index, {}, summary)

    def probe(self, shard: Shard) -> None:
        """Do nothing."""


def made_up_shards(num_shards: int, shard_size: int, skip: set[int]) -> Iterator[Shard]:
    """Return shards as a plan has them."""
    references = MadeUp(num_shards * shard_size).references()
    for index in range(num_shards):
        items = tuple(next(references) for _ in range(shard_size))
        if index not in skip:
            yield Shard(index, items)


def _measure(folder: str, num_shards: int, num_workers: int, shard_size: int) -> dict[str, float]:
    path = str(Path(folder, "output"))
    output, num_images = Output(path), num_shards * shard_size
    output.begin(Manifest(job="benchmark", plans=(Plan("0" * 32, num_images, num_shards),)))
    from benchmarks.driver import EmptyWorker  # under this name the workers find it

    shards = partial(made_up_shards, num_shards, shard_size)
    work = Work("committed", output, num_images, shards, partial(EmptyWorker, path))
    with Cluster(num_workers=num_workers) as cluster:
        assert cluster.connect().num_workers == num_workers  # Ray has started
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        wall, cpu = time.perf_counter(), time.process_time()
        result = run_to_end(work, cluster, max_failures=None)
        assert result.total.num_images == num_images
        return {
            "seconds": time.perf_counter() - wall,
            "cpu_milliseconds_per_shard": (time.process_time() - cpu) / num_shards * 1e3,
            "peak_growth_mib": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10,
        }


if __name__ == "__main__":
    main(tyro.cli(Driver))
