from pathlib import Path

import pytest

from pipeline.storage.uris import UnsafeNameError, absolute, check_name, overlaps


def test_local_paths_are_absolute_and_without_a_scheme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute("a/b") == absolute(f"file://{tmp_path}/a/b") == str(tmp_path / "a/b")
    assert absolute("s3://bucket/../a#b") == "s3://bucket/../a#b"


@pytest.mark.parametrize("name", ["", "/a", "a//b", "../a", "a/..", "./a", "a\0b"])
def test_names_that_lead_out_are_refused(name: str) -> None:
    with pytest.raises(UnsafeNameError, match="would not stay inside its folder"):
        check_name(name)
    assert check_name("a/..b/c d#%.txt") == "a/..b/c d#%.txt"


def test_a_place_overlaps_itself_and_what_is_inside(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert overlaps(f"{tmp_path}/a", f"{tmp_path}/a/b") and overlaps(f"{tmp_path}/link", f"{tmp_path}/a")
    assert not overlaps(f"{tmp_path}/a", f"{tmp_path}/ab")
    assert overlaps("s3://key:secret@bucket/a/", "S3://bucket//a/b") and not overlaps("s3://bucket/a", "/bucket/a")
