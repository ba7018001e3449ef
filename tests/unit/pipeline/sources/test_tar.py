import io
import pickle
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.images import ImageError
from pipeline.sources.opening import no_images, open_source
from pipeline.sources.reference import Columns, Source
from pipeline.storage.local import LocalFolder
from pipeline.storage.opening import open_folder

Members = Sequence[tuple[str, bytes]]

CAT: Members = [("cat.jpg", b"image of a cat"), ("cat.txt", b"a cat"), ("cat.seg.png", b"where it is")]
LONG = "folder/" + 120 * "x" + "/ü" + 150 * "y"
DOG: Members = [(f"{LONG}.json", b"{}"), (f"{LONG}.PNG", 700 * b"d")]


def tar_of(members: Members, *, format: int = tarfile.GNU_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format) as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "000.tar").write_bytes(tar_of([*CAT, *DOG]))
    (tmp_path / "001.tar").write_bytes(tar_of([("./cat.webp", b"another cat")], format=tarfile.PAX_FORMAT))
    return tmp_path


def read_all(source: Source) -> dict[str, tuple[bytes, dict[str, bytes]]]:
    references = list(source.references())
    reader: Source = pickle.loads(pickle.dumps(source))
    samples = {reference.key: reader.read_sample(reference) for reference in references}
    return {key: (sample.data, dict(sample.carried)) for key, sample in samples.items()}


WHOLE = {
    "000/cat": (b"image of a cat", {"txt": b"a cat", "seg.png": b"where it is"}),
    f"000/{LONG}": (700 * b"d", {"json": b"{}"}),
    "001/cat": (b"another cat", {}),
}


@pytest.mark.parametrize("pattern", ["", "/*.tar", "/{000..001}.tar", "/**/*.tar"])
def test_samples_of_tars(folder: Path, pattern: str) -> None:
    (folder / "notes.txt").write_text("")
    source = open_source(f"{folder}{pattern}")
    assert read_all(source) == WHOLE
    assert list(source.references()) == list(source.references())
    assert source.carried == pa.map_(pa.string(), pa.binary())
    assert source.skipped == ({".txt": 1} if pattern == "" else {})


PAIRS: Members = [
    (f"{number}.{side}.jpg", f"{side} {number}".encode()) for number in "01" for side in ("left", "right")
]


def test_of_several_images_one_is_chosen_by_its_extension(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar_of([*PAIRS, *CAT]))
    source = open_source(str(tmp_path), Columns(image="left.jpg"))
    assert read_all(source) == {f"a/{n}": (f"left {n}".encode(), {"right.jpg": f"right {n}".encode()}) for n in "01"}
    assert source.skipped == {"samples without an image": 1}
    assert read_all(open_source(str(tmp_path), Columns(image="seg.png")))["a/cat"][0] == b"where it is"


def test_several_images_without_a_choice_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar_of([*PAIRS, ("2.up.jpg", b""), ("2.down.jpg", b"")]))
    source = open_source(str(tmp_path))
    assert list(source.references()) == []
    assert source.skipped == {"samples with several images: left.jpg, right.jpg": 3}
    with pytest.raises(
        ValueError, match=r"left.jpg, right.jpg: choose one with --image-column, as .*-column right.jpg"
    ):
        raise no_images(source)


def test_the_only_image_may_have_an_extension_of_several_parts(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar_of([("1.rgb.png", b"image"), ("1.txt", b"text")]))
    assert read_all(open_source(str(tmp_path))) == {"a/1": (b"image", {"txt": b"text"})}


def test_a_single_tar_and_formats(folder: Path) -> None:
    expected = {key: value for key, value in WHOLE.items() if key.startswith("000/")}
    for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        (folder / "000.tar").write_bytes(tar_of([*CAT, *DOG], format=format))
        source = open_source(str(folder / "000.tar"))
        assert read_all(source) == expected
    first = next(iter(source.references()))
    assert (first.source_uri, first.stem) == (f"{folder}/000.tar#cat.jpg", "000/cat")


def test_tars_in_other_file_systems(tmp_path: Path) -> None:
    memory = open_folder(f"memory://{tmp_path.name}")
    memory.write("a/000.tar", tar_of([*CAT, *DOG]))
    memory.write("a/001.tar", tar_of([("cat.webp", b"another cat")]))
    assert read_all(open_source(f"{memory}/a")) == WHOLE
    assert list(read_all(open_source(f"{memory}/*/001.tar"))) == ["a/001/cat"]


def test_a_sample_is_read_with_one_request(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source(str(folder))
    references = list(source.references())
    original, ranges = LocalFolder.read_range, []

    def read_range(self: LocalFolder, name: str, start: int, num_bytes: int) -> bytes:
        ranges.append((name, start, num_bytes))
        return original(self, name, start, num_bytes)

    monkeypatch.setattr(LocalFolder, "read_range", read_range)
    source.read_sample(references[0])
    assert ranges == [("000.tar", 0, 6 * 512)]


def test_a_listing_looks_at_headers_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.tar").write_bytes(tar_of([(f"{index}.jpg", bytes(2**20)) for index in range(8)]))

    class Counting(io.FileIO):
        num_bytes = 0

        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(size)
            Counting.num_bytes += len(data)
            return data

    monkeypatch.setattr(LocalFolder, "open", lambda self, name: Counting(self._join(name)))
    assert len(list(open_source(str(tmp_path / "a.tar")).references())) == 8
    assert Counting.num_bytes < 2**16


def test_what_is_no_sample_is_counted(tmp_path: Path) -> None:
    members = [("only.txt", b"no image"), ("__index__.json", b""), (".DS_Store", b""), ("a.jpg", b"a"), ("b.cls", b"1")]
    (tmp_path / "x.tar").write_bytes(tar_of(members))
    source = open_source(str(tmp_path / "x.tar"))
    assert list(read_all(source)) == ["x/a"]
    assert source.skipped == {"samples without an image": 2, "hidden": 2}


def test_a_sample_with_two_images_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(tar_of([("a.jpg", b"1"), ("a.png", b"2")]))
    source = open_source(str(tmp_path / "x.tar"))
    (reference,) = source.references()
    with pytest.raises(ImageError, match=r"2 images \(jpg, png\)") as caught:
        source.read(reference)
    assert caught.value.status == "ambiguous"


def damaged_header(data: bytearray) -> None:
    data[3 * 1024 + 10] ^= 0xFF  # in the name of the fourth member: the checksum does not fit


def cut_in_content(data: bytearray) -> None:
    del data[7 * 512 + 20 :]


def cut_in_header(data: bytearray) -> None:
    del data[6 * 512 + 100 :]


def cut_between_members(data: bytearray) -> None:
    del data[6 * 512 :]


def joined(data: bytearray) -> None:
    data += tar_of([("lost.jpg", b"behind the end mark")])


@pytest.mark.parametrize(
    ("damage", "whole", "start"),
    [
        (damaged_header, ["a", "b", "c"], 6 * 512),
        (cut_in_content, ["a", "b", "c"], 6 * 512),
        (cut_in_header, ["a", "b", "c"], 6 * 512),
        (cut_between_members, ["a", "b", "c"], 6 * 512),
        (joined, ["a", "b", "c", "d", "e"], 10 * 512),
        (bytearray.clear, [], 0),
        (lambda data: data.__setitem__(slice(None), b"no tar at all" * 100), [], 0),
    ],
)
def test_of_a_damaged_tar_the_rest_is_a_row(
    tmp_path: Path, damage: Callable[[bytearray], None], whole: list[str], start: int
) -> None:
    data = bytearray(tar_of([(f"{name}.jpg", name.encode()) for name in "abcde"]))
    damage(data)
    (tmp_path / "x.tar").write_bytes(data)
    source = open_source(str(tmp_path / "x.tar"))
    *references, rest = source.references()
    assert [reference.key for reference in references] == [f"x/{name}" for name in whole]
    assert [source.read(reference).decode() for reference in references] == whole
    assert (rest.key, rest.source_uri) == ("x#damaged", f"{tmp_path}/x.tar#byte={start}")
    with pytest.raises(ImageError, match=f"nothing can be listed from byte {start} on") as caught:
        source.read(rest)
    assert caught.value.status == "corrupt"


def test_a_tar_that_was_changed_is_told(folder: Path) -> None:
    source = open_source(str(folder / "001.tar"))
    (reference,) = source.references()
    for content in (tar_of([("dog.webp", b"another dog")]), b""):
        (folder / "001.tar").write_bytes(content)
        with pytest.raises(ImageError, match="changed after it was listed"):
            source.read(reference)


def test_a_tar_that_is_not_there_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"002\.tar, which is not there"):
        list(open_source(f"{folder}/{{000..002}}.tar").references())
