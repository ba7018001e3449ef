"""Large tensors take few page faults; counted in a process of its own, as PyTorch decides once in a process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

COUNT_FAULTS = """
import resource, torch, bls
bls.use_huge_pages()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

before = faults()
for _ in range(10):
    torch.ones(40 << 18)  # 40 MB
print(faults() - before)
"""
PAGES = 10 * 40 * 2**20 // os.sysconf("SC_PAGE_SIZE")
"""Of what is allocated while faults are counted."""
SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def _count_faults(**environment: str) -> int:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("THP_")}
    command = [sys.executable, "-c", COUNT_FAULTS]
    return int(subprocess.run(command, env=clean | environment, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(
    not SETTING.exists() or "[madvise]" not in SETTING.read_text(),
    reason=f"needs a Linux kernel that gives huge pages to those who ask: madvise in {SETTING}",
)
def test_large_tensors_are_in_huge_pages_unless_the_user_says_no() -> None:
    assert _count_faults() < 0.2 * PAGES
    assert _count_faults(THP_MEM_ALLOC_ENABLE="0") > 0.9 * PAGES


def test_importing_the_codec_changes_nothing_of_the_process() -> None:
    program = "import os; before = dict(os.environ); import bls.codec, bls.training; assert dict(os.environ) == before"
    subprocess.run([sys.executable, "-c", program], check=True)
