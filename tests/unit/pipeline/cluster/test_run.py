"""What the jobs share, with a cluster that does the work itself."""

import re
import shutil
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs import compress_dataset, decompress_dataset
from pipeline.cluster.cluster import Cluster
from pipeline.cluster.pool import ShardWorker
from pipeline.cluster.run import Result, Work, run_to_end
from pipeline.cluster.scheduler import InterruptedWorkError
from pipeline.console.exits import ExitCode, WorkError, exit_code
from pipeline.ledger.damage import DamagedFileError
from pipeline.ledger.manifest import Manifest, Plan
from pipeline.ledger.markers import Marker
from pipeline.ledger.output import Output
from pipeline.ledger.shard import Shard
from pipeline.ledger.summary import Summary


class FakeCluster(Cluster):
    """Commits one shard after the other; those of `bad` shards hold a quarantined image each."""

    def __init__(self, output: Output, bad: Sequence[int] = ()) -> None:
        super().__init__()
        self.done: list[int] = []
        self._output = output
        self._bad = bad

    def run(
        self, make_worker: Callable[[], ShardWorker], shards: Iterator[Shard | None]
    ) -> Generator[Marker, None, None]:
        for shard in shards:
            assert shard is not None
            self.done.append(shard.index)
            quarantined = {"empty": 1} if shard.index in self._bad else {}
            summary = Summary(2, quarantined, {status: f"{shard.index}.png: no bytes" for status in quarantined})
            yield self._output.commit(shard.index, {"metrics": b""}, summary, retry=shard.retry)


def run_fake(work: Work, cluster: FakeCluster, **options: Any) -> Result:
    return run_to_end(work, cluster, run=type(cluster).run, **options)


@pytest.fixture
def output(tmp_path: Path) -> Output:
    output = Output(str(tmp_path / "out"))
    output.begin(Manifest(job="compress", plans=(Plan("1" * 32),)))
    return output


def work(output: Output, num_shards: int = 4) -> Work:
    def shards(done: set[int]) -> Iterator[Shard]:
        return (Shard(index, ("a", "b")) for index in range(num_shards) if index not in done)

    def make_worker() -> Any:
        raise AssertionError("the cluster is a fake")

    return Work("compressed", output, 2 * num_shards, shards, make_worker)


def test_what_is_left_is_done_and_all_is_summed_up(output: Output, capsys: pytest.CaptureFixture[str]) -> None:
    output.commit(2, {"metrics": b""}, Summary(2, {"truncated": 1}, {"truncated": "x"}))
    cluster = FakeCluster(output)
    result = run_fake(work(output), cluster, max_failures=None)
    assert cluster.done == [0, 1, 3]
    assert (result.total.num_images, result.added.num_images) == (8, 6)
    assert result.exit_code is ExitCode.DONE_WITH_QUARANTINED  # of the whole output, whoever did it
    assert "2 of 8 images are compressed already" in capsys.readouterr().err


def test_shards_that_another_run_appended_meanwhile_are_not_less_than_nothing_left(output: Output) -> None:
    output.commit(7, {"metrics": b""}, Summary(2))
    result = run_fake(work(output), FakeCluster(output), max_failures=None)
    assert (result.total.num_images, result.num_left, result.exit_code) == (10, 0, ExitCode.DONE)


def test_an_append_ends_with_the_code_of_what_it_added(output: Output) -> None:
    append = replace(work(output), is_append=True)
    codes = [run_fake(append, FakeCluster(output, bad=[1]), max_failures=None).exit_code for _ in range(2)]
    assert codes == [ExitCode.DONE_WITH_QUARANTINED, ExitCode.DONE]


def test_the_start_of_the_first_worker_is_not_time_of_work(output: Output) -> None:
    class SlowCluster(FakeCluster):
        def run(self, *arguments: Any) -> Generator[Marker, None, None]:
            time.sleep(0.2)
            yield from super().run(*arguments)

    result = run_fake(work(output), SlowCluster(output), max_failures=None)
    assert 0.2 <= result.seconds_to_start < result.seconds
    assert result.speed.startswith("8 images in 0 s: ")


def test_a_finished_output_needs_no_cluster(output: Output) -> None:
    run_fake(work(output), FakeCluster(output), max_failures=None)
    cluster = FakeCluster(output)
    result = run_fake(work(output), cluster, max_failures=None)
    assert (cluster.done, result.added) == ([], Summary())
    assert result.exit_code is ExitCode.DONE


def test_a_file_that_was_deleted_since_it_was_committed_is_an_error(output: Output, tmp_path: Path) -> None:
    run_fake(work(output), FakeCluster(output), max_failures=None)
    file = output.markers()[2].files["metrics"]
    (tmp_path / "out" / file.name).unlink()
    with pytest.raises(DamagedFileError, match=rf"{re.escape(file.name)} is missing.*--repair"):
        run_fake(work(output), FakeCluster(output), max_failures=None)


@pytest.mark.parametrize(("max_failures", "done"), [(None, [0, 1, 2, 3]), (3, [0, 1, 2, 3]), (1, [0, 1, 2]), (0, [0])])
def test_more_failures_than_allowed_stop_the_job(output: Output, max_failures: int | None, done: list[int]) -> None:
    cluster = FakeCluster(output, bad=[0, 2, 3])
    if len(done) == 4:
        run_fake(work(output), cluster, max_failures=max_failures)
    else:
        with pytest.raises(WorkError, match=rf"\(\d empty\), --max-failures is {max_failures}; .* 0\.png: no bytes"):
            run_fake(work(output), cluster, max_failures=max_failures)
    assert cluster.done == done
    assert output.committed() == set(done)


@pytest.mark.parametrize(("retry", "done"), [(False, []), (True, [0, 2])])
def test_shards_with_quarantined_images_are_done_again_when_that_is_wanted(
    output: Output, retry: bool, done: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    run_fake(work(output), FakeCluster(output, bad=[0, 2]), max_failures=None)
    cluster = FakeCluster(output, bad=[2])
    result = run_fake(work(output), cluster, max_failures=None, retry_quarantined=retry)
    assert cluster.done == done
    assert (result.total.num_images, result.total.num_quarantined) == (8, 1 if retry else 2)
    assert ("2 shards are done again, 2 of their images were quarantined" in capsys.readouterr().err) == retry
    with pytest.raises(WorkError, match=r"1 images are quarantined \(1 empty\), --max-failures is 0"):
        run_fake(work(output), FakeCluster(output, bad=[2]), max_failures=0, retry_quarantined=True)
    assert {marker.shard: marker.retry for marker in output.markers()} == {0: 1, 1: 0, 2: 2 if retry else 1, 3: 0}


def test_shards_that_got_images_since_are_done_again(output: Output) -> None:
    run_fake(work(output), FakeCluster(output), max_failures=None)
    output.commit(1, {"metrics": b""}, Summary(1), retry=1)
    cluster = FakeCluster(output)
    sizes = dict.fromkeys(range(4), 2)
    result = run_fake(replace(work(output), num_images_of=sizes), cluster, max_failures=None)
    assert (cluster.done, result.total.num_images) == ([1], 8)


def test_a_job_that_is_stopped_tells_what_is_committed(output: Output, capsys: pytest.CaptureFixture[str]) -> None:
    class StoppedCluster(FakeCluster):
        def run(self, *arguments: Any) -> Generator[Marker, None, None]:
            yield next(super().run(*arguments))
            raise InterruptedWorkError

    result = run_fake(work(output), StoppedCluster(output), max_failures=None)
    assert (result.exit_code, result.total.num_images, result.num_left) == (ExitCode.FAILED, 2, 6)
    told = "stopped: 2 of 8 images are compressed, 6 are left. What is committed stays: the same command goes on"
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("error", [KeyboardInterrupt(), WorkError("a worker died")])
def test_whatever_ends_a_job_early_tells_what_is_left(
    output: Output, error: BaseException, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second Ctrl-C, for example, before any shard is done."""

    class EndingCluster(FakeCluster):
        def run(self, *_: Any) -> Generator[Marker, None, None]:
            yield from ()
            raise error

    def job() -> ExitCode:
        return run_fake(work(output), EndingCluster(output), max_failures=None).exit_code

    assert exit_code(job) is ExitCode.FAILED
    told = capsys.readouterr().err
    assert "0 of 8 images are compressed, 8 are left" in told and "nothing was left" not in told


@pytest.mark.parametrize("deleted", ["", "commits"])
def test_an_output_that_is_deleted_while_a_job_runs_is_told(
    output: Output, tmp_path: Path, deleted: str, capsys: pytest.CaptureFixture[str]
) -> None:
    class DeletingCluster(FakeCluster):
        def run(self, *arguments: Any) -> Generator[Marker, None, None]:
            yield from super().run(*arguments)
            shutil.rmtree(tmp_path / "out" / deleted)

    def job() -> ExitCode:
        return run_fake(work(output), DeletingCluster(output), max_failures=None).exit_code

    assert exit_code(job) is ExitCode.FAILED
    last = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    expected = "only 0 of 8 images are committed" if deleted else "out was deleted or moved while the job wrote to it"
    assert len(last) == 1 and expected in last[0]


def test_workers_are_stopped_before_the_reason_is_told(output: Output) -> None:
    """An error that ends a job must not leave its workers to the garbage collector, which comes after Ray's end."""
    is_closed = False

    class ClosingCluster(FakeCluster):
        def run(self, *arguments: Any) -> Generator[Marker, None, None]:
            nonlocal is_closed
            try:
                yield from super().run(*arguments)
            finally:
                is_closed = True

    with pytest.raises(WorkError) as caught:
        run_fake(work(output), ClosingCluster(output, bad=[0]), max_failures=0)
    assert is_closed and caught.traceback


def test_failures_of_earlier_runs_count(output: Output) -> None:
    output.commit(0, {"metrics": b""}, Summary(2, {"empty": 2}, {"empty": "x"}))
    cluster = FakeCluster(output)
    with pytest.raises(WorkError, match="2 images are quarantined"):
        run_fake(work(output), cluster, max_failures=1)
    assert cluster.done == []


def test_the_exit_code_tells_of_quarantined_images() -> None:
    assert Result(Summary(2), Summary(2), 1.0).exit_code == 0
    assert Result(Summary(2, {"empty": 1}), Summary(), 1.0).exit_code == 3


@pytest.mark.parametrize("main", [compress_dataset.main, decompress_dataset.main])
@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--num-workers", "0"),
        ("--cpus-per-worker", "0"),
        ("--gpus-per-worker", "-0.5"),
        ("--max-pixels", "0"),
        ("--max-failures", "-1"),
    ],
)
def test_senseless_numbers_are_wrong_usage(
    main: Callable[[Sequence[str]], int], option: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--input", str(tmp_path), "--output", str(tmp_path / "out"), f"{option}={value}"])
    assert caught.value.code == 2
    assert f"{option} is {value}, expected" in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_a_file_is_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "photo.png").touch()
    (tmp_path / "out").touch()
    arguments = ["--input", str(tmp_path / "photo.png*"), "--output", str(tmp_path / "out")]
    assert compress_dataset.main(arguments) == 2
    assert "Not a directory" in capsys.readouterr().err
