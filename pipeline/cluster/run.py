"""What the jobs have in common: do what is left, sum up what is committed, say how it ended."""

import time
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.cluster.cluster import Cluster
from pipeline.cluster.pool import ShardWorker, run_shards
from pipeline.cluster.scheduler import DamagedShardsError, InterruptedWorkError
from pipeline.console import events
from pipeline.console.exits import GOES_ON, ExitCode, WorkError
from pipeline.console.printing import say
from pipeline.console.progress import ProgressReport
from pipeline.console.text import speed_text
from pipeline.ledger.damage import DamagedFileError
from pipeline.ledger.markers import Committed, Marker
from pipeline.ledger.output import Output
from pipeline.ledger.shard import Shard
from pipeline.ledger.summary import Summary, Tally

RunShards = Callable[[Any, Callable[[], ShardWorker], Iterator[Shard | None]], Generator[Marker, None, None]]
"""Does shards on a cluster, as `run_shards`."""


@dataclass(frozen=True)
class Work:
    """What a job is to do; `verb` is what becomes of an image, `shards` leaves out those of the given numbers.

    `shards` gives None while the next shard depends on running ones; `saw` is told of every marker. `num_images_of` has
    the size of shards that may have got more images since they were done: they are done again, and so are those of
    `again`.
    """

    verb: str
    output: Output
    num_images: int
    shards: Callable[[set[int]], Iterator[Shard | None]]
    make_worker: Callable[[], ShardWorker]
    num_images_of: Mapping[int, int] = field(default_factory=dict)
    is_part: bool = False  # of a whole that is not there yet
    saw: Callable[[Marker], None] = lambda _: None
    again: Collection[int] = ()
    is_append: bool = False  # earlier runs told of what they quarantined

    def is_to_do_again(self, marker: Marker, retry_quarantined: bool) -> bool:
        """Return whether a shard that is done is outdated, or has quarantined images that are to be retried."""
        summary = marker.summary
        is_outdated = self.num_images_of.get(marker.shard, summary.num_images) != summary.num_images
        return is_outdated or marker.shard in self.again or (retry_quarantined and summary.num_quarantined > 0)

    def state(self, done: Summary) -> str:
        """Say how much is done and how much is left."""
        num_left = self.num_images - done.num_images
        return f"{done.num_images} of {self.num_images} images are {self.verb}, {num_left} are left"


@dataclass(frozen=True)
class Result:
    """Sums over the whole output, and over what this run added to it in how many seconds."""

    total: Summary
    added: Summary
    seconds: float
    num_left: int = 0  # images
    is_stopped: bool = False  # by the user, before the end
    is_part: bool = False
    damage: Sequence[DamagedFileError] = ()  # one for each shard that was left out for it
    is_append: bool = False
    seconds_to_start: float = 0.0  # of the first worker, and of Ray

    @property
    def exit_code(self) -> ExitCode:
        """Return the code of a job that came to its end, or was stopped in order."""
        if self.is_stopped or self.damage:
            return ExitCode.FAILED
        if self.is_part:
            return ExitCode.DONE_IN_PART
        told = self.added if self.is_append else self.total
        return ExitCode.DONE_WITH_QUARANTINED if told.quarantined else ExitCode.DONE

    @property
    def speed(self) -> str:
        """Return how fast the run was, without the time that Ray took to start."""
        return speed_text(self.added, self.seconds, seconds_to_start=self.seconds_to_start, num_left=self.num_left)


def run_to_end(
    work: Work,
    cluster: Cluster,
    *,
    max_failures: int | None,
    retry_quarantined: bool = False,
    run: RunShards = run_shards,
) -> Result:
    """Do the shards that are not committed, or have quarantined images to be tried again, then tidy up.

    Raises:
        WorkError: more than `max_failures` images are quarantined, or as `run_shards`.
        DamagedFileError: a file of a shard that was done before is missing.
        ClusterError: as `Cluster.connect`.
    """
    start = time.monotonic()
    committed, again = _read_committed(work, retry_quarantined)
    tally, left = Tally(committed.total), _Left(work, set(committed.attempts), again)
    is_stopped, damage = False, tuple[DamagedFileError, ...]()
    if committed.total.num_images < work.num_images:
        with _telling_what_is_left(work, tally):
            markers = run(cluster, work.make_worker, left.shards())
            is_stopped, damage = _run(work, markers, committed, tally, max_failures)
    if is_stopped:
        say(f"stopped: {work.state(tally.now)}. {GOES_ON}")
    committed = work.output.up_to_date(committed)
    work.output.sweep(committed)
    if not is_stopped and not damage:
        _check_all_are_there(work, committed)
    if not damage:
        work.output.check_complete(committed)
    result = Result(
        committed.total,
        tally.added,
        time.monotonic() - start,
        num_left=max(work.num_images - committed.total.num_images, 0),  # another run may have appended meanwhile
        is_stopped=is_stopped,
        is_part=work.is_part,
        damage=damage,
        is_append=work.is_append,
        seconds_to_start=(left.began or start) - start,
    )
    events.emit("done", exit_code=result.exit_code, seconds=result.seconds, **events.sums(committed.total))
    return result


def _read_committed(work: Work, retry_quarantined: bool) -> tuple[Committed, dict[int, Marker]]:
    """Return what is done, and the markers of shards that are to be done again; say how much that is."""
    committed, again = Committed(), {}
    for marker in work.output.iter_markers():
        work.saw(marker)
        if work.is_to_do_again(marker, retry_quarantined):
            again[marker.shard] = marker
        else:
            committed.add(marker)
    done = committed.total.num_images
    events.emit("plan", output=str(work.output), num_images=work.num_images, num_images_done=done, verb=work.verb)
    if done:
        say(f"{done} of {work.num_images} images are {work.verb} already")
    if again:
        num_quarantined = sum(marker.summary.num_quarantined for marker in again.values())
        say(f"{len(again)} shards are done again, {num_quarantined} of their images were quarantined")
    return committed, again


@dataclass
class _Left:
    """The shards that are left to do; notes when the first worker asked for one."""

    work: Work
    done: set[int]
    again: Mapping[int, Marker]
    began: float | None = None

    def shards(self) -> Iterator[Shard | None]:
        """Yield the shards, each with the marker that it replaces."""
        self.began = time.monotonic()
        for shard in self.work.shards(self.done):
            yield shard and replace(shard, replaces=self.again.get(shard.index))


def _check_all_are_there(work: Work, committed: Committed) -> None:
    """Refuse an output from which something vanished while the job ran."""
    if committed.total.num_images < work.num_images:
        raise WorkError(
            f"only {committed.total.num_images} of {work.num_images} images are committed in {work.output}, all were "
            "done: somebody deleted commits while the job ran"
        )


@contextmanager
def _telling_what_is_left(work: Work, tally: Tally) -> Iterator[None]:
    """Add to whatever ends the work early how much is done."""
    try:
        yield
    except WorkError as error:
        raise WorkError(f"{error}. {work.state(tally.now)}") from error
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(work.state(tally.now)) from error


def _run(
    work: Work, markers: Generator[Marker, None, None], committed: Committed, tally: Tally, max_failures: int | None
) -> tuple[bool, tuple[DamagedFileError, ...]]:
    """Take note of markers as they come; return whether the user stopped the work, and what was left out."""
    with ProgressReport(work.verb, num_images=work.num_images, tally=tally) as progress, closing(markers):
        _check_failures(tally.now, max_failures, work.output)
        try:
            for marker in markers:
                committed.add(marker)
                work.saw(marker)
                tally.add(marker.summary)
                events.emit_shard(marker)
                progress.show()
                _check_failures(tally.now, max_failures, work.output)
        except InterruptedWorkError:
            return True, ()
        except DamagedShardsError as error:
            return False, error.damage
    return False, ()


def _check_failures(summary: Summary, max_failures: int | None, output: Output) -> None:
    if max_failures is not None and summary.num_quarantined > max_failures:
        counts = ", ".join(f"{count} {status}" for status, count in sorted(summary.quarantined.items()))
        example = next(iter(summary.examples.values()))
        raise WorkError(
            f"{summary.num_quarantined} images are quarantined ({counts}), --max-failures is {max_failures}; "
            f"one of them is {example}. Rows of all are in {output}/metrics"
        )
