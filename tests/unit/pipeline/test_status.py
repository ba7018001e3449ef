import re
from pathlib import Path

from pipeline.status import Status

ROOT = Path(__file__).parents[3]


def test_statuses_are_written_nowhere_else() -> None:
    """A status that is spelt out in the code is one that nobody finds."""
    pattern = re.compile(r"(?:ImageError|quarantine)\(\s*\"")
    found = [str(path) for path in (ROOT / "pipeline").rglob("*.py") if pattern.search(path.read_text())]
    assert found == []


def test_every_status_is_used() -> None:
    code = "".join(path.read_text() for folder in ("pipeline", "jobs") for path in (ROOT / folder).rglob("*.py"))
    assert [status for status in Status if f"Status.{status.name}" not in code] == []


def test_each_status_is_documented() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    _, table = page.split("## Statuses")
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(Status)
