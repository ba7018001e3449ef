"""The Dockerfile, as far as it can be checked without building it."""

import fnmatch
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import partial
from importlib.metadata import version
from itertools import takewhile
from operator import ne
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[3]
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
DATASETS = PROJECT["optional-dependencies"]["datasets"]
REQUIREMENTS = {r.name: r for r in map(Requirement, [*PROJECT["dependencies"], *DATASETS])}
ACCEPT_QUARANTINED = ROOT / "deploy" / "accept_quarantined.sh"


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """Yield the instructions of a Dockerfile with their arguments; documents within it belong to their instruction."""
    text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)
    lines = iter(re.sub(r"\s*\\\n\s*", " ", text).splitlines())
    for line in lines:
        if not line.strip():
            continue
        name, _, rest = line.partition(" ")
        if name == "RUN" and (match := re.search(r"<<(\w+)", rest)):
            rest = "\n".join([rest, *takewhile(partial(ne, match[1]), lines)])
        yield name, rest


INSTRUCTIONS = list(instructions(DOCKERFILE))


def arguments(name: str) -> list[str]:
    return [rest for each, rest in INSTRUCTIONS if each == name]


def defaults() -> dict[str, str]:
    return dict(argument.split("=", 1) for argument in arguments("ARG") if "=" in argument)


def is_sent(path: str, patterns: list[str]) -> bool:
    """Tell whether .dockerignore lets a file into the build: the last pattern that matches it or its folder wins."""
    parts = path.split("/")
    parents = ["/".join(parts[:n]) for n in range(1, len(parts) + 1)]
    sent = True
    for pattern in patterns:
        wanted = pattern.removeprefix("!").rstrip("/")
        anywhere = wanted.removeprefix("**/")
        if any(fnmatch.fnmatch(p, wanted) or (anywhere != wanted and p.split("/")[-1] == anywhere) for p in parents):
            sent = pattern.startswith("!")
    return sent


def ignore_patterns() -> list[str]:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_ray_of_the_image_is_what_the_project_was_tested_with() -> None:
    assert defaults()["RAY_VERSION"] == version("ray")
    assert REQUIREMENTS["ray"].specifier.contains(defaults()["RAY_VERSION"])
    bases = [rest.split()[0] for rest in arguments("FROM") if rest.startswith("rayproject/")]
    assert bases == [f"rayproject/ray:${{RAY_VERSION}}-py311-{device}" for device in ("cpu", "gpu")]
    assert "3.11" in PROJECT["requires-python"]


def test_the_image_is_built_for_the_device_that_is_asked_for() -> None:
    stages = [rest.split(" AS ")[1] for rest in arguments("FROM") if " AS " in rest]
    last = arguments("FROM")[-1]
    assert [last.replace("${DEVICE}", device) for device in ("cpu", "gpu")] == stages
    assert defaults()["DEVICE"] == "cpu"


def test_torch_is_one_that_the_project_takes() -> None:
    pinned = re.findall(r"torch==([\d.]+)", DOCKERFILE)
    assert len(pinned) == 2 and len(set(pinned)) == 1
    assert REQUIREMENTS["torch"].specifier.contains(pinned[0])


def test_extras_exist() -> None:
    extras = defaults()["EXTRAS"].split(",")
    assert set(extras) <= set(PROJECT["optional-dependencies"])
    assert {"s3", "query", "train"} <= set(extras)  # what manifests and deploy/README.md use


def test_what_is_copied_exists_and_reaches_the_build() -> None:
    sources = [
        source
        for rest in arguments("COPY")
        for source in [word for word in shlex.split(rest) if not word.startswith("--")][:-1]
    ]
    assert {"bls", "pipeline", "jobs", "pyproject.toml", "deploy/accept_quarantined.sh"} <= set(sources)
    for source in sources:
        path = ROOT / source
        assert path.exists()
        files = (
            [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
        )
        names = [str(file.relative_to(ROOT)) for file in files]
        assert [name for name in names if not is_sent(name, ignore_patterns())] == []
    assert is_sent("bls/bundles/default/bundle.json", ignore_patterns())


@pytest.mark.parametrize("path", [".git/config", ".venv/bin/python", "runs/a", "bls/__pycache__/a.pyc", "secret.txt"])
def test_what_the_image_does_not_need_is_not_sent(path: str) -> None:
    assert not is_sent(path, ignore_patterns())


def test_every_package_is_in_the_image() -> None:
    packages = [pattern.rstrip("*") for pattern in PYPROJECT["tool"]["setuptools"]["packages"]["find"]["include"]]
    copied = [rest.split()[-1] for rest in arguments("COPY")]
    assert set(packages) <= set(copied)


def test_nothing_runs_as_root_and_nothing_is_fetched_by_url() -> None:
    users = arguments("USER")
    assert re.fullmatch(r"[1-9]\d*:\d+", users[-1])  # a number, so that Kubernetes can tell
    names = [name for name, _ in INSTRUCTIONS]
    last_root = max(index for index, (name, rest) in enumerate(INSTRUCTIONS) if (name, rest) == ("USER", "root"))
    assert names[last_root + 1 :].index("USER") == 1  # one instruction, which makes the folder
    assert "ADD" not in names
    assert all("curl" not in rest and "wget" not in rest for rest in arguments("RUN"))
    owner = users[-1]
    assert all(f"--chown={owner}" in rest for rest in arguments("COPY"))


def test_what_the_image_checks_when_it_is_built_holds_here() -> None:
    (document,) = (rest for rest in arguments("RUN") if "<<EOF" in rest)
    first, _, program = document.partition("\n")
    assert first == "python <<EOF"
    subprocess.run([sys.executable, "-"], input=program, text=True, cwd=ROOT, check=True, timeout=300)


@pytest.mark.parametrize(("code", "expected"), [(0, 0), (1, 1), (2, 2), (3, 0), (130, 130)])
def test_only_exit_code_3_is_taken_for_success(code: int, expected: int) -> None:
    command = [str(ACCEPT_QUARANTINED), sys.executable, "-c", f"import sys; sys.exit({code})"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == expected


def test_a_job_runs_in_the_folder_of_the_project_with_its_arguments_untouched(tmp_path: Path) -> None:
    program = "import os, sys; print(os.getcwd(), sys.argv[1:])"
    command = [str(ACCEPT_QUARANTINED), sys.executable, "-c", program, "s3://b/**/*.jpg", "a b", ""]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == f"{ROOT} ['s3://b/**/*.jpg', 'a b', '']"


def test_instructions_are_read_as_docker_reads_them() -> None:
    text = "# syntax\nARG A=1\nRUN a \\\n  && b\nRUN python <<EOF\nx = 1\n\ny\nEOF\nUSER 1:1\n"
    assert list(instructions(text)) == [
        ("ARG", "A=1"),
        ("RUN", "a && b"),
        ("RUN", "python <<EOF\nx = 1\n\ny"),
        ("USER", "1:1"),
    ]
    assert [is_sent(path, ["*", "!a/", "**/c/"]) for path in ("b", "a/b", "a/c/d", "c")] == [False, True, False, False]
