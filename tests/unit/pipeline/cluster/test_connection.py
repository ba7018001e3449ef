import os
import subprocess
import sys

import pytest

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
