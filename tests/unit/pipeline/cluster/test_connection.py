import os
import subprocess
import sys

import pytest

from pipeline.cluster.connection import connect
from pipeline.console.exits import ExitCode, exit_code

SETTINGS = {"RAY_DEDUP_LOGS_SKIP_REGEX": ".", "RAY_USAGE_STATS_ENABLED": "0"}
FIRST_IMPORT_OF_RAY = """
import importlib, os, sys

def watch(event, arguments):
    if event == "import" and arguments[0] == "ray" and not seen:
        seen.append({name: os.environ.get(name) for name in sys.argv[2:]})

seen = []
sys.addaudithook(watch)
importlib.import_module(sys.argv[1])
print(*seen)
"""


@pytest.mark.parametrize("job", ["compress_dataset", "decompress_dataset", "evaluate", "train"])
def test_settings_of_ray_are_made_before_it_is_imported(job: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    command = [sys.executable, "-c", FIRST_IMPORT_OF_RAY, f"jobs.{job}", *SETTINGS]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == [str(SETTINGS)]


@pytest.mark.parametrize("address", [None, "", "local"])
def test_ray_is_started_here_unless_an_address_names_a_cluster(
    address: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if address is None:
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
    else:
        monkeypatch.setenv("RAY_ADDRESS", address)
    started: list[dict[str, object]] = []
    monkeypatch.setattr("ray.init", lambda **options: started.append(options))
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    assert not connect(num_cpus=3), "no nodes join this machine later"
    assert [(options["address"], options["num_cpus"]) for options in started] == [("local", 3)]
    assert capsys.readouterr().err == "starting Ray on this machine\n"


def test_ray_that_does_not_start_is_a_failure_and_not_wrong_usage(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As when its raylet dies meanwhile: the same command may do."""

    def fail(**_: object) -> None:
        raise Exception("the raylet died")

    monkeypatch.setattr("ray.init", fail)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert exit_code(lambda: ExitCode(connect())) == ExitCode.FAILED
    assert "Ray cannot start on this machine (Exception: the raylet died): if it is very" in capsys.readouterr().err
