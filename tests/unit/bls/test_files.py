from pathlib import Path

import pytest

from bls.files import replace_file, write_file


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write_file(path, b"old")
    others = [tmp_path / name for name in (".a.png", ".a.tmp.png", "a.tmp.png")]  # somebody may call files so
    for other in others:
        other.write_bytes(b"somebody's")

    def fail(temporary: Path) -> None:
        assert temporary.suffix == ".png" and temporary.parent == tmp_path
        temporary.write_bytes(b"half")
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        replace_file(path, fail)
    assert path.read_bytes() == b"old" and set(tmp_path.iterdir()) == {path, *others}
    write_file(path, b"new")
    assert path.read_bytes() == b"new" and set(tmp_path.iterdir()) == {path, *others}
    assert {other.read_bytes() for other in others} == {b"somebody's"}
