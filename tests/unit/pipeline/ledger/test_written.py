from pathlib import Path

import pytest

from pipeline.ledger.output import Output
from pipeline.ledger.written import check_replaceable, write_results


def test_results_replace_what_was_recorded_alone(tmp_path: Path) -> None:
    folder = Output(str(tmp_path)).folder
    write_results(folder, {"README.md": b"1"})
    write_results(folder, {"README.md": b"2", "a.png": b"2"})
    assert {path.name for path in tmp_path.iterdir()} == {"README.md", "a.png", "written.json"}
    folder.write("b.png", b"somebody else's")
    check_replaceable(folder, ["a.png", "c.png"])
    with pytest.raises(ValueError, match=r"holds a file b\.png that this job did not write"):
        write_results(folder, {"a.png": b"3", "b.png": b"3"})
    assert (tmp_path / "a.png").read_bytes() == b"2"
    folder.write("written.json", b"[]")
    with pytest.raises(ValueError, match=r"written\.json is not a list of files that a job wrote"):
        check_replaceable(folder, ["a.png"])
