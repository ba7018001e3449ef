"""The project's own statements: its map, its commands, its requirements, and what its files must not say."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PAGES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))
DOCUMENTS = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "benchmarks/reference/README.md", *PAGES]
PACKAGES = ["bls", "pipeline", "jobs"]
CODE_FOLDERS = [*PACKAGES, "examples", "benchmarks"]
FOLDERS = [*CODE_FOLDERS, "tests", "docs", "deploy"]
MAX_MODULES = 13  # __init__.py included
TESTED_ELSEWHERE = {
    # Through what is built of them: alone they have no behaviour that a reader of the test would know.
    "bls/entropy/arrays.py": "unit/bls/entropy/adaptive/test_model.py",
    "bls/entropy/coders.py": "unit/bls/test_codec.py",
    "bls/entropy/estimates.py": "unit/bls/entropy/adaptive/test_fitting.py",
    "bls/entropy/interval.py": "unit/bls/entropy/adaptive/test_coder.py",
    "bls/measures/luma.py": "unit/bls/test_pixels.py",
    "bls/measures/nlp.py": "unit/bls/training/test_distortion.py",
    "bls/training/constraints.py": "unit/bls/transforms/test_networks.py",
    "bls/training/finish.py": "unit/pipeline/train/test_fit.py",
    "bls/training/gains.py": "unit/bls/transforms/test_gains.py",
    "bls/training/model.py": "unit/bls/training/test_trainer.py",
    "bls/training/noise.py": "unit/bls/transforms/test_quantization.py",
    "bls/transforms/layers.py": "unit/bls/transforms/test_networks.py",
    "pipeline/compress/coding.py": "unit/pipeline/compress/test_worker.py",
    "pipeline/compress/good_rows.py": "unit/jobs/test_compress_dataset.py",
    "pipeline/decompress/containers.py": "unit/pipeline/decompress/test_worker.py",
    "pipeline/evaluate/panel_pages.py": "unit/pipeline/evaluate/test_panels.py",
    "pipeline/evaluate/result_page.py": "unit/pipeline/evaluate/test_results.py",
    "pipeline/ledger/bitstream_rows.py": "unit/pipeline/decompress/test_worker.py",
    "pipeline/ledger/shard.py": "unit/pipeline/work/test_commit.py",
    "pipeline/read/dataset.py": "unit/pipeline/read/test_torch_dataset.py",
    "pipeline/read/sql.py": "unit/pipeline/read/test_queries.py",
    "pipeline/report/charts.py": "unit/pipeline/report/test_page.py",
    "pipeline/report/words.py": "unit/pipeline/report/test_page.py",
    # Kinds of one thing, which one test puts through the same.
    "pipeline/evaluate/curve_plots.py": "unit/pipeline/test_drawing.py",
    "pipeline/evaluate/relaxation_plot.py": "unit/pipeline/test_drawing.py",
    "pipeline/train/curve_plot.py": "unit/pipeline/test_drawing.py",
    "pipeline/sources/folder.py": "unit/pipeline/sources/test_opening.py",
    "pipeline/sources/one_file.py": "unit/pipeline/sources/test_opening.py",
    "pipeline/sources/reading.py": "unit/pipeline/report/test_originals.py",
    "pipeline/sources/reference.py": "unit/pipeline/sources/test_opening.py",
    "pipeline/sources/union.py": "unit/pipeline/sources/test_opening.py",
    "pipeline/sources/uri_list.py": "unit/pipeline/sources/test_opening.py",
    "pipeline/storage/listing.py": "unit/pipeline/storage/test_folder.py",
    "pipeline/storage/local.py": "unit/pipeline/storage/test_folder.py",
    "pipeline/storage/opening.py": "unit/pipeline/storage/test_folder.py",
    "pipeline/storage/remote.py": "unit/pipeline/storage/test_folder.py",
    # They need Ray, or are whole jobs.
    "jobs/check_relaxation.py": "integration/test_evaluate.py",
    "jobs/evaluate.py": "integration/test_evaluate.py",
    "pipeline/cluster/pool.py": "integration/test_engine.py",
    "pipeline/train/images.py": "unit/pipeline/train/test_sweep.py",
    "pipeline/train/resources.py": "integration/test_train.py",
    "pipeline/train/worker.py": "integration/test_train.py",
}
"""Modules without a test of their name, and the test that would fail if they did."""
NO_SOURCES = {"build", "demo-output", "runs", "__pycache__"}


def folders() -> set[str]:
    """Return the folders that hold code."""
    paths = (path for folder in CODE_FOLDERS for path in (ROOT / folder).rglob("*.py"))
    return {str(path.parent.relative_to(ROOT)) for path in paths}


def mapped_folders() -> list[str]:
    (code_map,) = re.findall(r"^```map\n(.*?)^```", (ROOT / "ARCHITECTURE.md").read_text(), re.MULTILINE | re.DOTALL)
    return re.findall(r"^(\S+)  +\S", code_map, re.MULTILINE)


def modules_of(name: str) -> list[str]:
    """Return a module, or all those of a package, by their dotted names."""
    path = ROOT / name.replace(".", "/")
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
    return [".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for file in files]


def imported_packages(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import(names=names):
                yield from (alias.name.split(".")[0] for alias in names)
            case ast.ImportFrom(module=str(module), level=0):
                yield module.split(".")[0]


def text_files() -> Iterator[tuple[Path, str]]:
    for path in ROOT.rglob("*"):
        parts = path.relative_to(ROOT).parts
        hidden = parts[0].startswith(".") and parts[0] not in {".ci", ".gitignore"}
        if hidden or NO_SOURCES.intersection(parts) or parts[0].endswith(".egg-info") or not path.is_file():
            continue
        try:
            yield path, path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue


def test_map_names_every_folder_once() -> None:
    assert sorted(mapped_folders()) == sorted(folders())


def test_no_folder_is_crowded() -> None:
    """Where a folder outgrows a look at it, it hides what its parts have to do with each other."""
    for folder in folders() - {"benchmarks"}:
        assert len(list((ROOT / folder).glob("*.py"))) <= MAX_MODULES, folder


@pytest.mark.parametrize("document", DOCUMENTS)
def test_make_commands_exist(document: str) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = re.findall(r"(?:^|`)make ([a-z-]+)", (ROOT / document).read_text(), re.MULTILINE)
    assert set(named) <= set(targets)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_jobs_and_links_exist(document: str) -> None:
    text = (ROOT / document).read_text()
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if not link.startswith(("http:", "https:"))]
    assert [link for link in links if not leads_somewhere(document, link)] == []
    jobs = re.findall(r"python (\S+\.py)", text)
    named = re.findall(rf"`((?:{'|'.join(FOLDERS)})/[\w./-]*\.(?:md|py|sh|yaml))`", text)
    assert [path for path in jobs + named if not (ROOT / path).exists()] == []


def leads_somewhere(document: str, link: str) -> bool:
    """Return whether the file of a link exists, and the heading in it that the link names, if any."""
    path, _, anchor = link.partition("#")
    target = (ROOT / document).parent / path if path else ROOT / document
    return target.exists() and (not anchor or anchor in anchors(target))


def anchors(document: Path) -> list[str]:
    """Return the anchors that GitHub makes of the headings of a document."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]


def test_readme_is_short() -> None:
    assert len(re.findall(r"\S*\w\S*", (ROOT / "README.md").read_text())) < 1000


def test_readme_names_the_two_commands_and_ci_runs_them() -> None:
    assert {"make demo", "make test"} <= set(re.findall(r"make [a-z-]+", (ROOT / "README.md").read_text()))
    ci = (ROOT / ".ci" / "run").read_text().splitlines()
    assert [line for line in ci if line.startswith("make")] == ["make test", "make demo"]


def test_torch_range_admits_what_was_tested_and_no_more() -> None:
    requirements = {r.name: r for r in map(Requirement, PYPROJECT["project"]["dependencies"])}
    torch = requirements["torch"].specifier
    assert [torch.contains(version) for version in ("2.9.0", "2.13.0", "2.13.0+cpu")] == [True] * 3
    assert not torch.contains("2.14.0")


def test_every_third_party_import_is_a_dependency() -> None:
    # Comparing, drawing, filtering by SQL and reporting are extras of their own: who only compresses installs none.
    extras = PYPROJECT["project"]["optional-dependencies"]
    used = [extras[name] for name in ("compare", "datasets", "evaluate", "query", "report", "train")]
    needed = {r for r in sum(used, PYPROJECT["project"]["dependencies"]) if not r.startswith("bls-codec")}
    paths = (path for folder in PACKAGES for path in (ROOT / folder).rglob("*.py"))
    imported = {name for path in paths for name in imported_packages(path)}
    distributions = {"PIL": "pillow", "pytorch_msssim": "pytorch-msssim", "vl_convert": "vl-convert-python"}
    third_party = {distributions.get(n, n) for n in imported - sys.stdlib_module_names - set(PACKAGES)}
    assert third_party == {Requirement(r).name for r in needed}


FORBIDDEN = [
    contract
    for contract in PYPROJECT["tool"]["importlinter"]["contracts"]
    if contract["type"] == "forbidden" and "torch" in contract["forbidden_modules"]
]


@pytest.mark.parametrize("contract", FORBIDDEN, ids=lambda contract: contract["name"])
def test_what_needs_no_torch_loads_none(contract: dict[str, Any]) -> None:
    """The contracts look at the project's imports; this looks at what is loaded in the end."""
    sources = [module for name in contract["source_modules"] for module in modules_of(name)]
    heavy = contract["forbidden_modules"]
    program = f"import sys, {', '.join(sources)}; sys.exit(', '.join({heavy} & sys.modules.keys()) or 0)"
    subprocess.run([sys.executable, "-c", program.replace(str(heavy), repr(set(heavy)))], cwd=ROOT, check=True)


def test_importing_the_pipeline_loads_nothing_heavy() -> None:
    program = "import sys, pipeline; sys.exit(not {'torch', 'ray', 'pyarrow'}.isdisjoint(sys.modules))"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


@pytest.mark.parametrize(
    ("pattern", "what"),
    [
        (r"(?<![\w.])/(work|root|home)/", "paths of one machine"),
        (r"pypi\.org|pythonhosted\.org|npmjs\.(org|com)|deb\.debian\.org", "hosts of package registries"),
    ],
)
def test_files_do_not_name(pattern: str, what: str) -> None:
    found = [str(path.relative_to(ROOT)) for path, text in text_files() if re.search(pattern, text)]
    assert found == [], what


def test_every_module_has_a_test_of_its_name_or_a_reason() -> None:
    modules = [path for top in PACKAGES for path in (ROOT / top).rglob("*.py") if path.name != "__init__.py"]
    names = {str(path.relative_to(ROOT)): f"test_{path.stem.strip('_')}.py" for path in modules}
    lacking = {name for name, test in names.items() if not (ROOT / "tests/unit" / name).with_name(test).exists()}
    assert lacking - TESTED_ELSEWHERE.keys() == set(), "write a test of that name, or say which one tests it"
    assert TESTED_ELSEWHERE.keys() - lacking == set(), "has a test of its name, or is gone"
    assert [test for test in TESTED_ELSEWHERE.values() if not (ROOT / "tests" / test).exists()] == []
