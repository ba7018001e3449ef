"""What machines read of a job: one object per line, and nothing else."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs import compress_dataset, decompress_dataset
from pipeline.console import events
from pipeline.console.exits import ExitCode, exit_code
from pipeline.console.printing import print_commands, print_table, say
from pipeline.console.progress import ProgressReport
from pipeline.ledger.manifest import Manifest, Plan
from pipeline.ledger.output import Output
from pipeline.ledger.summary import Mean, Summary, Tally
from tests.unit.pipeline.cluster.test_run import FakeCluster, run_fake, work


def told(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """Return the objects on stderr; there must be nothing else on it, nor on stdout."""
    captured = capsys.readouterr()
    assert captured.out == ""
    return [json.loads(line) for line in captured.err.splitlines()]


def test_a_job_tells_what_it_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(str(tmp_path / "out"))
    output.begin(Manifest(job="compress", plans=(Plan("1" * 32),)))
    with events.for_machines(True):
        run_fake(work(output, num_shards=2), FakeCluster(output, bad=[1]), max_failures=None)
    records = told(capsys)
    assert [record["event"] for record in records] == ["plan", "shard", "shard", "quarantined", "progress", "done"]
    assert all(record["time"].endswith("+00:00") for record in records)
    plan, first, _, quarantined, progress, done = records
    assert (plan["output"], plan["num_images"], plan["num_images_done"]) == (str(output), 4, 0)
    assert (first["shard"], first["num_images"], first["num_quarantined"], first["bpp"]) == (0, 2, 0, None)
    assert first["worker"].count(":") == 1 and first["seconds"] >= 0
    assert {k: quarantined[k] for k in ("shard", "status", "num_images", "example")} == {
        "shard": 1,
        "status": "empty",
        "num_images": 1,
        "example": "1.png: no bytes",
    }
    assert (progress["num_images_done"], progress["num_images"], progress["num_quarantined"]) == (4, 4, 1)
    assert progress["seconds_left"] == 0 and progress["images_per_second"] > 0
    assert (done["exit_code"], done["num_images"], done["num_quarantined"]) == (3, 4, 1)


def test_fields_have_the_numbers_of_a_summary() -> None:
    means: dict[str, Any] = {"bpp": Mean(5.0, 2), "psnr_db": Mean(60.0, 2), "quality": Mean(9.0, 2)}
    summary = Summary(3, {"empty": 1}, {}, 64, 100, 10, 8, **means, num_targets_missed=1, stage_seconds={"decode": 0.5})
    summary = replace(summary, num_bytes_quarantined=7)
    assert events.sums(summary) == {
        "num_images": 3,
        "num_quarantined": 1,
        "num_pixels": 64,
        "num_bytes_in": 100,
        "num_bytes_quarantined": 7,
        "num_bytes_out": 10,
        "bpp": 1.0,
        "mean_bpp": 2.5,
        "psnr_db": 30.0,
        "ms_ssim": None,
        "quality": 4.5,
        "num_targets_missed": 1,
        "num_grown": 0,
        "num_bytes_grown": 0,
        "num_kept": 0,
        "num_bytes_kept": 0,
        "stage_seconds": {"decode": 0.5},
    }


def test_nothing_for_people_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with events.for_machines(True):
        print_table([("images", "3")])
        print_commands([("Query:", "duckdb")])
        say("a line\nof two")
        with ProgressReport("compressed", num_images=2, tally=Tally(added=Summary(2))) as progress:
            progress.show()
    assert [(record["event"], record.get("message")) for record in told(capsys)] == [
        ("message", "a line\nof two"),
        ("progress", None),
    ]


def test_people_are_told_no_events(capsys: pytest.CaptureFixture[str]) -> None:
    with events.for_machines(False):
        events.emit("done", exit_code=0)
        say("hello")
    assert capsys.readouterr().err == "hello\n"


@pytest.mark.parametrize(
    ("error", "code", "error_class", "message"),
    [
        (OSError("ftp://me:secret@host/x is gone"), ExitCode.FAILED, "OSError", "ftp://host/x is gone"),
        (KeyboardInterrupt(), ExitCode.FAILED, "KeyboardInterrupt", "stopped"),
    ],
)
def test_an_error_is_an_event(
    error: BaseException, code: ExitCode, error_class: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def job() -> ExitCode:
        raise error

    with events.for_machines(True):
        assert exit_code(job) is code
    (record,) = told(capsys)
    assert {name: value for name, value in record.items() if name != "time"} == {
        "event": "error",
        "exit_code": code,
        "error_class": error_class,
        "message": message,
    }


@pytest.mark.parametrize("job", [compress_dataset, decompress_dataset])
def test_the_option_turns_people_s_output_off(job: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--input", str(tmp_path / "nothing"), "--output", str(tmp_path / "out"), "--log-json"]
    assert job.main(arguments) == ExitCode.WRONG_USAGE
    (record,) = told(capsys)
    assert (record["event"], record["exit_code"], record["error_class"]) == ("error", 2, "UsageError")
