import importlib
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

from jobs.options import check_at_least
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
