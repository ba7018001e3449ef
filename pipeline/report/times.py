"""Who worked when: from the commit markers of a job, how long it took and how busy each of its workers was.

Pauses in which nobody worked (the job was stopped, or had not got its workers yet) are cut out of its time.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipeline.ledger.markers import Marker, Stint
from pipeline.ledger.summary import Summary

_SHORTEST_GAP_SHARE = 1 / 400  # of the job's time: shorter ones between two stints of a worker would not be seen

Span = tuple[float, float]


@dataclass(frozen=True)
class WorkerTimes:
    """One worker: what it did, and when it was busy, in seconds since the job began."""

    name: str
    summary: Summary
    seconds: float
    busy: Sequence[Span]

    @property
    def seconds_per_megapixel(self) -> float:
        """Return how long a megapixel took it."""
        return self.seconds / max(self.summary.num_pixels / 1e6, 1e-9)


@dataclass(frozen=True)
class JobTimes:
    """How long somebody was at work, and each worker in the order in which they began."""

    seconds: float = 0.0
    workers: Sequence[WorkerTimes] = ()

    @property
    def mean_workers(self) -> float:
        """Return how many worked at a time, on average."""
        return sum(worker.seconds for worker in self.workers) / self.seconds if self.seconds else 0.0


def job_times(markers: Iterable[Marker]) -> JobTimes:
    """Sum up the stints in markers; shards of older releases, which have none, are left out.

    What a retried shard holds counts for the worker that worked longest on it.
    """
    stints: dict[str, list[Stint]] = defaultdict(list)
    summaries: dict[str, Summary] = defaultdict(Summary)
    for marker in markers:
        if marker.stints:
            summaries[max(marker.stints, key=lambda stint: stint.seconds).worker] += marker.summary
        for stint in marker.stints:
            stints[stint.worker].append(stint)
    worked = _union((stint.began, stint.ended) for each in stints.values() for stint in each)
    starts, offsets, seconds = [began for began, _ in worked], [], 0.0
    for began, ended in worked:
        offsets.append(seconds)
        seconds += ended - began

    def elapsed(time: float) -> float:
        place = bisect_right(starts, time) - 1
        return offsets[place] + time - starts[place]

    workers = []
    for name, each in stints.items():
        spans = ((elapsed(stint.began), elapsed(stint.ended)) for stint in each)
        busy = _union(spans, gap=_SHORTEST_GAP_SHARE * seconds)
        workers.append(WorkerTimes(name, summaries[name], sum(stint.seconds for stint in each), busy))
    return JobTimes(seconds, sorted(workers, key=lambda worker: worker.busy[0]))


def _union(spans: Iterable[Span], *, gap: float = 0.0) -> list[Span]:
    """Join spans that overlap, or lie no further apart than a gap."""
    joined: list[Span] = []
    for began, ended in sorted(spans):
        if joined and began <= joined[-1][1] + gap:
            joined[-1] = joined[-1][0], max(joined[-1][1], ended)
        else:
            joined.append((began, ended))
    return joined
