import errno
import io
import os
import pickle
import threading
from pathlib import Path

import pytest

from pipeline.storage.folder import TEMPORARY_PREFIX, Folder, delete_many, list_names, read_many
from pipeline.storage.listing import walk_remote
from pipeline.storage.opening import open_folder
from pipeline.storage.uris import UnsafeNameError

NAMES = ["a b.jpg", "a.b/c.jpg", "a/50%25.jpg", "a/what?#1.jpg", "a/ü.jpg", "z::y.jpg"]


@pytest.fixture(params=["local", "file", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    path = tmp_path / "in #1 50%20?"
    uri = {"local": str(path), "file": f"file://{path}", "memory": f"memory://{tmp_path.name}/in #1 50%20?"}
    return open_folder(uri[request.param])


def test_round_trip_of_literal_names(folder: Folder) -> None:
    for index, name in enumerate(NAMES):
        folder.write(name, bytes([index]))
    assert sorted(list_names(folder)) == sorted(NAMES)
    assert read_many(folder, NAMES) == [bytes([index]) for index in range(len(NAMES))]


def test_listing_is_sorted_folder_by_folder(folder: Folder) -> None:
    for name in ["b.jpg", "a/2.jpg", "a.jpg", "a/1.jpg", "a/c/3.jpg"]:
        folder.write(name, b"")
    assert list(folder.walk()) == [["a.jpg", "b.jpg"], ["a/1.jpg", "a/2.jpg"], ["a/c/3.jpg"]]


def test_write_replaces_and_create_does_not(folder: Folder) -> None:
    assert folder.create("x/marker.json", b"first")
    assert not folder.create("x/marker.json", b"second")
    assert folder.read("x/marker.json") == b"first"
    folder.write("x/marker.json", b"third")
    assert folder.read("x/marker.json") == b"third"


def test_open_files_are_written_from_where_they_are(folder: Folder) -> None:
    for content in (b"12first", b"12second"):
        file = io.BytesIO(content)
        file.seek(2)
        folder.write_from("x/archive.tar", file)
    assert folder.read("x/archive.tar") == b"second"
    assert folder.num_bytes("x/archive.tar") == 6
    with pytest.raises(FileNotFoundError):
        folder.num_bytes("x/other.tar")
    assert list(list_names(folder)) == ["x/archive.tar"]
    with pytest.raises(UnsafeNameError):
        folder.write_from("../archive.tar", io.BytesIO())


def test_delete_is_idempotent(folder: Folder) -> None:
    folder.write("x", b"")
    folder.write("y", b"")
    folder.delete("x")
    delete_many(folder, ["x", "y"])
    assert list(list_names(folder)) == []


def test_a_missing_folder_has_no_files(folder: Folder) -> None:
    assert not folder.exists()
    assert list(folder.walk()) == []
    with pytest.raises(FileNotFoundError):
        folder.read("x")


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd", "", "a//b", "./a", "a/.", "x\0y"])
def test_names_stay_inside(folder: Folder, name: str) -> None:
    for action in (folder.read, folder.delete, folder.child, lambda name: folder.write(name, b"")):
        with pytest.raises(UnsafeNameError, match="inside its folder"):
            action(name)


def test_folders_travel_between_processes(folder: Folder) -> None:
    folder.write("x", b"1")
    assert pickle.loads(pickle.dumps(folder)).read("x") == b"1"


def test_exactly_one_of_many_creates(tmp_path: Path) -> None:
    folder = open_folder(str(tmp_path))
    winners: list[int] = []

    def create(index: int) -> None:
        if folder.create("marker", str(index).encode()):
            winners.append(index)

    threads = [threading.Thread(target=create, args=(index,)) for index in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [folder.read("marker")] == [str(index).encode() for index in winners]
    assert os.listdir(tmp_path) == ["marker"]


def test_create_on_a_file_system_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    folder = open_folder(str(tmp_path))
    assert folder.create("marker", b"first")
    assert not folder.create("marker", b"second")
    assert folder.read("marker") == b"first"
    assert os.listdir(tmp_path) == ["marker"]


def test_create_does_not_hide_other_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "link", no_space)
    with pytest.raises(OSError, match="No space"):
        open_folder(str(tmp_path)).create("marker", b"")
    assert os.listdir(tmp_path) == []


def test_a_failed_write_leaves_the_old_content_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = open_folder(str(tmp_path))
    folder.write("x", b"old")

    def no_space(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        folder.write("x", b"new")
    assert folder.read("x") == b"old"
    assert os.listdir(tmp_path) == ["x"]


def test_temporary_files_lie_beside_their_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Renaming is atomic within a file system only."""
    seen = []
    monkeypatch.setattr(os, "replace", lambda source, target: seen.append((Path(source), Path(target))))
    open_folder(str(tmp_path)).write("a/x", b"")
    ((source, target),) = seen
    assert source.parent == target.parent == tmp_path / "a"
    assert source.name.startswith(TEMPORARY_PREFIX)


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "x.jpg").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "up").symlink_to(tmp_path)
    assert list(list_names(open_folder(str(tmp_path)))) == ["link/x.jpg", "real/x.jpg"]


def test_a_named_pipe_is_an_error_and_no_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.jpg")
    folder = open_folder(str(tmp_path))
    assert list(list_names(folder)) == ["x.jpg"]
    with pytest.raises(OSError, match="not a regular file"):
        folder.read("x.jpg")


def test_relative_paths_do_not_follow_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = open_folder("here")
    monkeypatch.chdir("/")
    assert str(folder) == str(tmp_path / "here")


def test_a_folder_is_a_file_system_of_arrow(tmp_path: Path) -> None:
    assert open_folder(str(tmp_path)).to_arrow() == (None, str(tmp_path))
    folder = open_folder("memory://arrow/folder")
    folder.write("a.txt", b"content")
    filesystem, path = folder.to_arrow()
    assert filesystem is not None
    with filesystem.open_input_stream(f"{path}/a.txt") as stream:
        assert stream.read() == b"content"


def test_parts_of_files(folder: Folder) -> None:
    folder.write("a/x", b"0123456789")
    assert folder.read_range("a/x", 3, 4) == b"3456"
    assert folder.read_range("a/x", 8, 4) == b"89"
    with folder.open("a/x") as file:
        assert (file.seek(5), file.read(2), file.seek(0), file.read(1)) == (5, b"56", 0, b"0")
    assert [folder.holds(name) for name in ("a/x", "a", "b")] == [True, False, False]
    with pytest.raises(FileNotFoundError):
        folder.open("b")


def test_folders_that_are_not_entered_are_left_out(folder: Folder) -> None:
    for name in ("a/1", "b/2", "b/c/3", "b/d/4"):
        folder.write(name, b"")
    assert list(folder.walk(lambda name: name in ("b", "b/d"))) == [[], ["b/2"], ["b/d/4"]]


def test_names_of_a_large_folder_are_packed(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"a/{index} ü" for index in range(10)]
    for name in names:
        folder.write(name, b"")
    monkeypatch.setattr("pipeline.storage.listing.MAX_PLAIN_NAMES", 4)
    _, packed = folder.walk()
    assert not isinstance(packed, list)
    assert (list(packed), len(packed), packed[3], list(packed[8:])) == (names, 10, names[3], names[8:])


class PagedStore:
    """Lists a bucket as S3 does, and remembers how much of it at once."""

    def __init__(self, keys: list[str]) -> None:
        self.keys = keys
        self.page_sizes: list[int] = []

    def call_s3(self, method: str, *, Prefix: str, MaxKeys: int, ContinuationToken: str = "0", **_: str) -> object:
        assert method == "list_objects_v2"
        below = [key.removeprefix(Prefix) for key in self.keys if key.startswith(Prefix)]
        found = sorted({Prefix + "".join(key.partition("/")[:2]) for key in below})
        start = int(ContinuationToken)
        page = found[start : start + MaxKeys]
        self.page_sizes.append(len(page))
        answer = {
            "Contents": [{"Key": key} for key in page if not key.endswith("/") or key == Prefix],
            "CommonPrefixes": [{"Prefix": key} for key in page if key.endswith("/") and key != Prefix],
            "IsTruncated": start + MaxKeys < len(found),
            "NextContinuationToken": str(start + MaxKeys),
        }
        return {name: value for name, value in answer.items() if value != []}


def test_s3_is_listed_in_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.storage.listing.PAGE_SIZE", 2)
    store = PagedStore(["in/", "in/b.jpg", "in/a.jpg", "in/sub/c.jpg", "in/d.jpg", "in/sub/deep/e.jpg", "other.jpg"])
    folders = [list(names) for names in walk_remote(store, "bucket/in", enter=lambda _: True)]
    assert folders == [["a.jpg", "b.jpg", "d.jpg"], ["sub/c.jpg"], ["sub/deep/e.jpg"]]
    assert max(store.page_sizes) == 2 and len(store.page_sizes) == 3 + 1 + 1


def test_folders_of_a_store_are_listed_several_at_a_time() -> None:
    together = threading.Barrier(4, timeout=10)

    class SlowStore(PagedStore):
        def call_s3(self, method: str, *, Prefix: str, MaxKeys: int, **more: str) -> object:
            if Prefix[:4] in ("in/g", "in/h"):  # those before them tell how large folders are
                together.wait()
            return super().call_s3(method, Prefix=Prefix, MaxKeys=MaxKeys, **more)

    files = [f"{letter}{number}/a.jpg" for letter in "fgh" for number in range(4)] + ["f3/deep/b.jpg"]
    store = SlowStore([f"in/{name}" for name in [*files, "left out/c.jpg"]])
    names = [name for names in walk_remote(store, "bucket/in", enter=lambda name: "o" not in name) for name in names]
    assert names == sorted(files)
