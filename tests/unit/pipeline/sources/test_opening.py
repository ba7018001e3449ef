import os
import pickle
import re
import socket
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.sources.opening import no_images, open_source, open_sources
from pipeline.sources.reference import Columns, ImageReference
from pipeline.storage.folder import list_names
from pipeline.storage.opening import open_folder


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


def test_names_that_are_not_utf8_have_keys_and_are_read(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/f\xfc"))
    folder.mkdir()
    names = {
        b"caf\xe9.jpg": "caf\\xe9.jpg",
        b"caf\\xe9.jpg": "caf\\x5cxe9.jpg",
        b"caf\\x5cxe9.jpg": "caf\\x5cx5cxe9.jpg",
        "café\\n.jpg".encode(): "café\\n.jpg",
        b"\xff\xfe\\.jpg": "\\xff\\xfe\\.jpg",
    }
    for name in names:
        (folder / os.fsdecode(name)).write_bytes(name)
    source = pickle.loads(pickle.dumps(open_source(str(folder))))
    references = list(source.references())
    assert {reference.key: source.read(reference) for reference in references} == {
        key: name for name, key in names.items()
    }
    for reference in references:
        "".join((reference.key, reference.source_uri, reference.stem)).encode()


def test_archives_and_lists_in_folders_that_are_not_utf8_are_read(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/f\xfc"))
    touch(folder, "a.jpg", "b\\xe9.jpg")
    (folder / "list.txt").write_text("a.jpg\nb\\xe9.jpg\n")
    with tarfile.open(folder / os.fsdecode(b"caf\xe9.tar"), "w") as tar:
        tar.add(folder / "a.jpg", "a.jpg")
    for name, table in [(b"caf\xe9", {"image": [b"a.jpg"]}), (b"list", {"path": ["a.jpg"]})]:
        with (folder / os.fsdecode(name + b".parquet")).open("wb") as file:  # Arrow opens names that are UTF-8
            pq.write_table(pa.table(table), file)
    for name, expected in [
        (b"list.txt", ["a.jpg", "b\\xe9.jpg"]),
        (b"list.parquet", ["a.jpg"]),
        (b"caf\xe9.tar", ["a.jpg"]),
        (b"*.tar", ["a.jpg"]),
        (b"caf\xe9.parquet", ["a.jpg"]),
    ]:
        source = open_source(str(folder / os.fsdecode(name)))
        references = list(source.references())
        assert [source.read_sample(reference).data.decode() for reference in references] == expected
        "".join(f"{r.key} {r.source_uri} {r.stem} {r.file}" for r in references).encode()


@pytest.mark.parametrize("name", ["nowhere", "nowhere.jpg", "file.csv"])
def test_only_a_folder_is_a_source(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "file.csv")
    with pytest.raises(ValueError, match="expected a folder of images"):
        open_source(str(tmp_path / name))


@pytest.mark.parametrize("name", ["photo.jpg", "caf\\xe9 100%.PNG"])
def test_one_image_is_a_source(tmp_path: Path, name: str) -> None:
    touch(tmp_path, name, "other.jpg")
    source = open_source(str(tmp_path / name))
    (reference,) = source.references()
    reader = pickle.loads(pickle.dumps(source))
    assert reader.read_sample(reference).data == name.encode()
    assert (reference.stem, str(source)) == (reference.key[:-4], f"{tmp_path}/{name}")


def test_a_folder_of_files_has_no_columns(tmp_path: Path) -> None:
    touch(tmp_path, "photo.jpg")
    with pytest.raises(ValueError, match="--image-column and --key-column are for tables"):
        list(open_source(str(tmp_path), Columns(image="foo")).references())


@pytest.mark.parametrize("dictionary", [False, True])
def test_a_folder_of_save_to_disk_is_exported_by_one_line(tmp_path: Path, dictionary: bool) -> None:
    below = "train/" if dictionary else ""
    touch(tmp_path, *(below + name for name in ("data-00000-of-00001.arrow", "state.json", "dataset_info.json")))
    if dictionary:
        touch(tmp_path, "dataset_dict.json")
    source = open_source(str(tmp_path))
    assert list(source.references()) == []
    split = "['train']" if dictionary else ""
    with pytest.raises(ValueError, match=re.escape(f"load_from_disk('{tmp_path}'){split}.to_parquet('data.parquet')")):
        raise no_images(source)


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


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", ["a.jpg", "b.jpg"]),
        ("**/*.jpg", ["a.jpg", "b.jpg", "2019-05/a.jpg", "2019-06/x/c.jpg"]),
        ("2019-*", ["2019-05/a.jpg", "2019-05/b.png", "2019-06/x/c.jpg"]),
        ("{2019-05,2019-06}/*", ["2019-05/a.jpg", "2019-05/b.png", "2019-06/x/c.jpg"]),
    ],
)
def test_stars_choose_among_images(tmp_path: Path, pattern: str, expected: list[str]) -> None:
    names = ["a.jpg", "b.jpg", "2019-05/a.jpg", "2019-05/b.png", "2019-06/x/c.jpg", "2019-06/.y/d.jpg", "2019.txt"]
    touch(tmp_path, *names)
    memory = open_folder(f"memory://{tmp_path.name}-{len(pattern)}")
    for name in names:
        memory.write(name, name.encode())
    for root in (str(tmp_path), str(memory)):
        source = open_source(f"{root}/{pattern}")
        references = list(source.references())
        assert [reference.key for reference in references] == expected
        assert [reference.source_uri for reference in references] == [f"{root}/{key}" for key in expected]
        assert [pickle.loads(pickle.dumps(source)).read(reference).decode() for reference in references] == expected
        assert str(source) == f"{root}/{pattern}"


def test_stems_are_those_of_the_images_that_match(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "a.png")
    assert [reference.stem for reference in open_source(f"{tmp_path}/*.jpg").references()] == ["a"]


def test_a_folder_of_that_name_wins(tmp_path: Path) -> None:
    touch(tmp_path, "a*/1.jpg", "ab/2.jpg", "x.tar/3.jpg")
    assert keys(tmp_path / "a*") == ["1.jpg"]
    assert keys(tmp_path / "x.tar") == ["3.jpg"]


def test_a_pattern_below_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected a pattern below a folder that is there"):
        open_source(f"{tmp_path}/none/*.jpg")
    with pytest.raises(ValueError, match=r"matches no file: expected \.tar files"):
        open_source(f"{tmp_path}/*.tar")


def test_a_folder_with_many_files_is_listed_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{index}.{end}" for index in range(20) for end in ("jpg", "m.jpg")] + ["3.png", "ü.jpg", "7.txt"]
    touch(tmp_path, *names, "sub/a.jpg")
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg"))).write_bytes(b"")
    expected = list(open_source(str(tmp_path)).references())
    monkeypatch.setattr("pipeline.storage.listing.MAX_PLAIN_NAMES", 7)
    monkeypatch.setattr("pipeline.sources.folder._CHUNK_NUM_NAMES", 5)
    source = open_source(str(tmp_path))
    assert list(source.references()) == expected
    assert source.skipped == {".txt": 1}
    assert {reference.stem for reference in expected} >= {"3.jpg", "3.png", "3.m", "sub/a"}


def test_a_list_names_images_anywhere(tmp_path: Path) -> None:
    touch(tmp_path / "in", "a b.jpg", "sub/c.png")
    touch(tmp_path / "other", "d.jpg")
    memory = open_folder(f"memory://{tmp_path.name}-list")
    memory.write("e.jpg", b"e")
    lines = ["# a note", "a b.jpg", "", "sub/c.png", "../other/d.jpg", f"file://{tmp_path}/other/../in/a.jpg"]
    (tmp_path / "in" / "list.txt").write_text("\n".join([*lines, f"{memory}/e.jpg"]), encoding="utf-8-sig")
    source = open_source(str(tmp_path / "in" / "list.txt"))
    references = list(source.references())
    elsewhere = str(tmp_path).lstrip("/")
    assert [reference.key for reference in references] == [
        "a b.jpg",
        "sub/c.png",
        f"{elsewhere}/other/d.jpg",
        "a.jpg",
        str(memory).removeprefix("memory://").lstrip("/") + "/e.jpg",
    ]
    assert references[2].source_uri == f"{tmp_path}/other/d.jpg"
    read = [source.read(reference) for reference in references if reference.key != "a.jpg"]
    assert read == [b"a b.jpg", b"sub/c.png", b"d.jpg", b"e"]
    with pytest.raises(FileNotFoundError):
        source.read(references[3])


def test_a_list_must_be_text_without_passwords(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"a.jpg\ns3://key:secret@bucket/b.jpg\n")
    with pytest.raises(ValueError, match=r"line 2 of .*list\.txt has a user, password or signature") as caught:
        list(open_source(str(tmp_path / "list.txt")).references())
    assert "secret" not in str(caught.value)
    (tmp_path / "list.txt").write_bytes(b"caf\xe9.jpg")
    with pytest.raises(ValueError, match=r"line 1 of .* is not UTF-8"):
        list(open_source(str(tmp_path / "list.txt")).references())


def odd_folder(folder: Path) -> None:
    """Put into a folder what is named like images and archives and can never be read."""
    touch(folder, "a.jpg", "sub/b.jpg")
    (folder / "self.jpg").symlink_to("self.jpg")
    (folder / "one.jpg").symlink_to("two.jpg")
    (folder / "two.jpg").symlink_to("one.jpg")
    (folder / "sub" / "up").symlink_to(folder)
    (folder / "null.png").symlink_to("/dev/null")
    (folder / "gone.png").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.jpg")
    os.mkfifo(folder / "pipe.tar")
    (folder / "more.jpg").symlink_to("pipe.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(folder / "socket.jpg"))  # a path of a socket must be short


def test_what_can_never_be_read_is_skipped_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    odd_folder(tmp_path)
    source = open_source(str(tmp_path))
    # A link to nowhere is an input: its file may be there tomorrow.
    assert [reference.key for reference in source.references()] == ["a.jpg", "gone.png", "sub/b.jpg"]
    assert source.skipped == {"links in a circle": 4, "named pipes": 3, "devices": 1, "sockets": 1}
    source = open_source(f"{tmp_path}/*.jpg")
    assert [reference.key for reference in source.references()] == ["a.jpg"]
    assert source.skipped == {"links in a circle": 3, "named pipes": 2, "sockets": 1}


def test_archives_that_can_never_be_read_are_skipped(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("a.jpg"))
    os.mkfifo(tmp_path / "y.tar")
    for uri in (str(tmp_path), f"{tmp_path}/*.tar"):
        source = open_source(uri)
        assert [reference.key for reference in source.references()] == ["x/a"]
        assert source.skipped == {"named pipes": 1}


def test_other_listings_name_what_is_not_a_file_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job must see what it could replace."""
    monkeypatch.chdir(tmp_path)
    odd_folder(tmp_path)
    assert {"pipe.jpg", "self.jpg", "socket.jpg", "null.png"} < set(list_names(open_folder(str(tmp_path))))
