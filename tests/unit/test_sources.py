import os
from pathlib import Path

import pytest

from pipeline.sources import ImageReference, open_source, open_sources


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())


def keys(root: Path) -> list[str]:
    return [reference.key for reference in open_source(str(root)).references()]


def test_references_are_stable_and_readable(tmp_path: Path) -> None:
    touch(tmp_path, "b/x y.PNG", "a.jpg", "b/ü.webp")
    source = open_source(str(tmp_path))
    references = list(source.references())
    assert references == list(source.references())
    assert references[0] == ImageReference(key="a.jpg", source_uri=f"{tmp_path}/a.jpg", stem="a")
    assert [reference.key for reference in references] == ["a.jpg", "b/x y.PNG", "b/ü.webp"]
    assert [source.read(reference) for reference in references] == [r.key.encode() for r in references]


def test_what_is_no_image_by_name_is_counted(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "labels.json", "more.JSON", "README", ".hidden.jpg", ".thumbnails/a.jpg", "photo.heic")
    source = open_source(str(tmp_path))
    assert [reference.key for reference in source.references()] == ["a.jpg", "photo.heic"]
    assert source.skipped == {".json": 2, "no extension": 1, "hidden": 2}
    list(source.references())
    assert source.skipped.total() == 5  # of the last listing alone


def test_stems_of_restored_images_never_meet(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "a.png", "b.jpg", "c.jpg", "c.jpg.png", "d/a.jpg", "e.tar.png", "a.m/x.jpg")
    stems = {reference.key: reference.stem for reference in open_source(str(tmp_path)).references()}
    assert stems == {
        "a.jpg": "a.jpg",
        "a.png": "a.png",
        "b.jpg": "b",
        "c.jpg": "c",
        "c.jpg.png": "c.jpg.png",
        "d/a.jpg": "d/a",
        "e.tar.png": "e.tar",
        "a.m/x.jpg": "a.m/x",
    }
    assert len(set(stems.values())) == len(stems)


def test_a_name_that_is_no_utf8_gets_a_key_all_the_same(tmp_path: Path) -> None:
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg"))).write_bytes(b"")
    (reference,) = open_source(str(tmp_path)).references()
    assert reference.key == "caf\\xe9.jpg"
    reference.source_uri.encode()


@pytest.mark.parametrize("name", ["nowhere", "file.jpg"])
def test_only_a_folder_is_a_source(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "file.jpg")
    with pytest.raises(ValueError, match="expected a folder of images"):
        open_source(str(tmp_path / name))


def test_several_folders_are_one_source_with_keys_of_its_own(tmp_path: Path) -> None:
    touch(tmp_path / "one", "a.jpg", "b/c.jpg", "text.txt")
    touch(tmp_path / "two", "a.jpg", "more.txt")
    source = open_sources([str(tmp_path / "one"), str(tmp_path / "two")])
    references = list(source.references())
    assert [reference.key for reference in references] == ["0/a.jpg", "0/b/c.jpg", "1/a.jpg"]
    assert [source.read(reference) for reference in references] == [b"a.jpg", b"b/c.jpg", b"a.jpg"]
    assert source.skipped == {".txt": 2}
    with pytest.raises(ValueError, match="expected a folder of images"):
        open_sources([str(tmp_path / "one"), str(tmp_path / "none")])
