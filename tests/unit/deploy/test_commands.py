"""Every job that a document runs exists, and takes the options that the document gives it."""

import re
from pathlib import Path

import pytest

from tests.commands import commands, parse, runs_of_jobs

ROOT = Path(__file__).parents[3]
DOCUMENTS = ["README.md", "deploy/README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_jobs_take_the_options_that_a_document_gives_them(document: str) -> None:
    runs = [run for command in commands((ROOT / document).read_text()) for run in runs_of_jobs(command)]
    assert runs or document not in ("README.md", "deploy/README.md", "docs/operations.md")
    for job, arguments in runs:
        assert (ROOT / "jobs" / f"{job}.py").exists()
        if arguments != ["--help"]:
            parse(job, arguments)


def test_links_of_the_readme_exist() -> None:
    folder = ROOT / "deploy"
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", (folder / "README.md").read_text())
    assert links and [link for link in links if not (folder / link).exists()] == []


def test_installed_commands_are_found() -> None:
    assert list(runs_of_jobs("bls-query --input a --worst 3 | head")) == [
        ("query_metrics", ["--input", "a", "--worst", "3"])
    ]


def test_an_option_that_does_not_exist_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    document = (
        "```\npip install x\nRAY_ADDRESS=auto python jobs/compress_dataset.py --input a \\\n    --outptu b && ls\n```\n"
    )
    ((job, arguments),) = (run for command in commands(document) for run in runs_of_jobs(command))
    assert (job, arguments) == ("compress_dataset", ["--input", "a", "--outptu", "b"])
    with pytest.raises(SystemExit):
        parse(job, arguments)
    assert "--outptu" in capsys.readouterr().err
    assert parse(job, ["--input", "a", "--output", "b"]).output == "b"
