import importlib
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from jobs.compress_dataset import CompressDataset
from jobs.options import (
    ClusterOptions,
    InputOptions,
    RerunOptions,
    arguments_of,
    check_at_least,
    lasting_arguments,
    parse,
)
from pipeline.console import printing

ROOT = Path(__file__).parents[3]
JOBS = ("compress_dataset", "decompress_dataset", "query_metrics", "report", "evaluate", "train", "check_relaxation")


@pytest.mark.parametrize("job", JOBS)
def test_every_job_has_a_version(job: str) -> None:
    done = subprocess.run([sys.executable, ROOT / "jobs" / f"{job}.py", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"bls-codec {version('bls-codec')}\n")


def test_installed_commands_are_the_jobs() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    commands = {command: f"jobs.{job}:main" for job, command in printing.INSTALLED.items()}
    assert scripts == {"bls": "bls.__main__:main", **commands}
    for target in scripts.values():
        module, _, function = target.partition(":")
        assert callable(getattr(importlib.import_module(module), function))


def test_the_next_command_is_of_the_kind_that_was_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/usr/bin/bls-compress"])
    assert printing.job_command("report", "--input", "a b") == "bls-report --input 'a b'"
    monkeypatch.setattr("sys.argv", ["jobs/compress_dataset.py"])
    assert "jobs/report.py --input" in printing.job_command("report", "--input", "a b")


def test_a_question_to_the_metrics_loads_nothing_heavy() -> None:
    program = (
        "import runpy, sys; sys.argv = ['query_metrics.py', '--help']\n"
        "try: runpy.run_path('jobs/query_metrics.py', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "sys.exit(', '.join({'torch', 'ray', 'numba'} & sys.modules.keys()) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_numbers_that_are_too_small_name_their_option() -> None:
    check_at_least(1, num_workers=None, shard_size=1)
    with pytest.raises(ValueError, match="--shard-size is 0, expected 1 or more"):
        check_at_least(1, num_workers=2, shard_size=0)


def test_options_of_groups_are_flags_like_all_others() -> None:
    flags = "--input a --output b --quality 2 --key-column k --max-pixels 9 --num-workers 3 --overwrite"
    config = parse(CompressDataset, flags.split(" "))
    assert config.images == InputOptions("a", key_column="k", max_pixels=9)
    assert (config.cluster, config.rerun) == (ClusterOptions(num_workers=3), RerunOptions(overwrite=True))
    assert parse(CompressDataset, list(arguments_of(config))) == config
    assert "--key-column" not in list(arguments_of(config, leave_out=["key_column"]))


def test_a_whole_number_is_written_as_one() -> None:
    config = parse(CompressDataset, ["--input", "a", "--output", "b", "--quality", "4", "--effort", "2"])
    assert [*arguments_of(config)] == ["--input", "a", "--output", "b", "--quality", "4", "--effort", "2"]


def test_a_command_for_later_is_the_same_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    flags = "--input a/*.jpg --output b --bundle s3://id:secret@x/c --overwrite"
    config = parse(CompressDataset, flags.split(" "))
    later = parse(CompressDataset, lasting_arguments(config))
    assert (later.images.input, later.output, later.bundle) == (f"{tmp_path}/a/*.jpg", f"{tmp_path}/b", "s3://x/c")
    assert not later.rerun.overwrite


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (InputOptions, {"input": "a", "max_pixels": 0}, "--max-pixels is 0, expected 1"),
        (ClusterOptions, {"cpus_per_worker": 0}, "--cpus-per-worker is 0, expected 1"),
        (ClusterOptions, {"gpus_per_worker": -1}, "--gpus-per-worker is -1, expected 0"),
        (RerunOptions, {"max_failures": -1}, "--max-failures is -1, expected 0"),
    ],
)
def test_each_group_checks_itself(kind: Callable[..., object], options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**options)


def test_workers_with_a_part_of_a_gpu_run_on_it() -> None:
    assert (ClusterOptions().device, ClusterOptions(gpus_per_worker=0.25).device) == ("cpu", "cuda")
