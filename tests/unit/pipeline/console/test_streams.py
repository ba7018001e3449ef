import subprocess
import sys

import pytest

PROGRAM = """
import sys
from pipeline.console import printing
sys.stdin.read()
printing.print_table([("a", "b")])
printing.say("still at work")
print("and at the end", end="")
sys.exit(3)
"""


@pytest.mark.parametrize("closed", ["stdout", "stdout stderr"])
def test_a_job_whose_readers_are_gone_goes_on(closed: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin and process.stdout and process.stderr
    with process.stdin, process.stdout, process.stderr, process:
        for name in closed.split():
            getattr(process, name).close()
        process.stdin.close()
        if "stderr" not in closed:
            assert process.stderr.read() == b"still at work\n"
    assert process.returncode == 3
