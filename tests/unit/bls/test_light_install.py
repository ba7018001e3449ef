"""`pip install bls-codec` brings what the codec needs, and neither Ray nor pyarrow."""

import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[3]
ROUND_TRIP = """
import numpy as np
from bls import Codec
x = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
codec = Codec.load()
assert codec.decompress(codec.compress(x, quality=4.37)).shape == x.shape
"""


def required(names: list[str]) -> set[str]:
    """Return these packages and all that they require here, extras aside."""
    found: set[str] = set()
    while names:
        name = names.pop()
        if name in found:
            continue
        try:
            requirements = [Requirement(text) for text in distribution(name).requires or ()]
        except PackageNotFoundError:  # it is for other machines
            continue
        found.add(name)
        names += [r.name for r in requirements if r.marker is None or r.marker.evaluate({"extra": ""})]
    return found


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with links to the codec and to all packages that its installation brings."""
    folder = tmp_path_factory.mktemp("light")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for name in required([Requirement(text).name for text in project["dependencies"]]):
        for file in distribution(name).files or ():
            top = file.parts[0]
            target = Path(str(distribution(name).locate_file(top)))
            if top != ".." and target.exists() and not (folder / top).exists():
                (folder / top).symlink_to(target)
    for package in ("bls", "pipeline", "jobs"):
        (folder / package).symlink_to(ROOT / package)
    return folder


def run(light: Path, program: str) -> subprocess.CompletedProcess[str]:
    """Run a program with nothing but Python's own library and that folder."""
    command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(light)!r})\n{program}"]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_codec_codes(light: Path) -> None:
    # fsspec is there: torch requires it.
    assert not {"ray", "pyarrow", "rich", "pytorch_msssim"} & {path.name for path in light.iterdir()}
    done = run(light, ROUND_TRIP)
    assert done.returncode == 0, done.stderr


def test_a_job_names_the_extra_that_is_missing(light: Path) -> None:
    done = run(light, "from jobs import compress_dataset")
    assert done.returncode != 0 and "pip install 'bls-codec[datasets]'" in done.stderr
