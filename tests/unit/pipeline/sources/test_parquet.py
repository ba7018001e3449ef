import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.images import ImageError
from pipeline.ledger.schema import bitstreams_schema, to_parquet
from pipeline.sources.opening import open_source
from pipeline.sources.parquet import image_column
from pipeline.sources.reference import Columns, Source
from pipeline.storage.local import LocalFolder
from pipeline.storage.opening import open_folder

IMAGES = [b"0", b"1", None, b"3", b"4", b"5", b"6"]


def table(**columns: Any) -> pa.Table:
    other = {
        "label": pa.array(range(7), pa.int16()),
        "when": pa.array(range(7), pa.timestamp("ns")),
        "words": [["a", "b"], [], None, ["c"], [], [], []],
        "split": pa.array(["x", "y", "x", "x", "y", "y", "x"]).dictionary_encode(),
    }
    return pa.table({"image": pa.array(IMAGES, pa.binary()), **other, **columns})


def write(path: Path, content: pa.Table) -> Path:
    path.parent.mkdir(exist_ok=True)
    pq.write_table(content, path, row_group_size=3)
    return path


def read_all(source: Source) -> dict[str, Any]:
    references = list(source.references())
    reader: Source = pickle.loads(pickle.dumps(source))
    values: dict[str, Any] = {}
    for reference in references:
        try:
            sample = reader.read_sample(reference)
            values[reference.key] = (sample.data, sample.carried)
        except ImageError as error:
            values[reference.key] = error.status
    return values


def test_rows_with_what_is_beside_the_image(tmp_path: Path) -> None:
    source = open_source(str(write(tmp_path / "train.parquet", table())))
    values = read_all(source)
    assert list(values) == [f"train/{row}" for row in range(7)]
    assert values["train/2"] == "no_image"
    data, carried = values["train/4"]
    assert data == b"4"
    assert source.carried == carried.type
    assert [(field.name, str(field.type)) for field in carried.type] == [
        ("label", "int16"),
        ("when", "timestamp[ns]"),
        ("words", "list<element: string>"),
        ("split", "string"),
    ]
    assert (carried["label"].as_py(), carried["when"].value, carried["split"].as_py()) == (4, 4, "y")
    assert pa.array([carried, None, carried], carried.type).field("label").to_pylist() == [4, 0, 4]


NULLS = {
    "none": pa.null(),
    "struct": pa.struct([("none", pa.null()), ("label", pa.int8())]),
    "list": pa.list_(pa.null()),
    "fixed": pa.list_(pa.null(), 1),
    "deep": pa.large_list(pa.struct([("none", pa.null())])),
    "map": pa.map_(pa.string(), pa.null()),
}


@pytest.mark.parametrize("name", NULLS)
def test_columns_without_any_value_are_carried(tmp_path: Path, name: str) -> None:
    values = {"struct": {"none": None, "label": 3}, "list": [None], "fixed": [None], "deep": [{"none": None}]}
    value = values.get(name)
    column = pa.array([value, None], NULLS[name])
    source = open_source(str(write(tmp_path / "x.parquet", pa.table({"image": [b"a", b"b"], name: column}))))
    first, second = (carried for _, carried in read_all(source).values())
    assert (first.as_py(), second.as_py()) == ({name: value}, {name: None})
    # As a worker writes them.
    stored = [{"key": "a", "stem": "a", "bitstream": b"", "carried": carried} for carried in (first, second)]
    data = to_parquet(stored, bitstreams_schema(source.carried), metadata={})
    assert pq.read_table(pa.BufferReader(data))["carried"].to_pylist() == [{name: value}, {name: None}]


def test_structs_of_bytes_and_path(tmp_path: Path) -> None:
    structs = [{"bytes": b"a", "path": "a.jpg"}, {"bytes": None, "path": None}, None]
    source = open_source(str(write(tmp_path / "x.parquet", pa.table({"img": structs, "id": ["p", "q", "r"]}))))
    values = read_all(source)
    assert values["x/0"][0] == b"a" and values["x/0"][1].as_py() == {"id": "p"}
    assert [values["x/1"], values["x/2"]] == ["no_image", "no_image"]


def test_an_image_without_bytes_is_read_by_its_path(tmp_path: Path) -> None:
    """As `datasets` writes images that are files; a relative path is below the folder of the table."""
    (tmp_path / "photo.png").write_bytes(b"photo")
    images: list[dict[str, Any]] = [
        {"bytes": None, "path": str(tmp_path / "photo.png")},
        {"bytes": None, "path": "photo.png"},
    ]
    images += [{"bytes": b"inside", "path": str(tmp_path / "photo.png")}, {"bytes": None, "path": None}]
    pq.write_table(pa.table({"image": images}), tmp_path / "x.parquet")
    source = open_source(str(tmp_path / "x.parquet"))
    *good, bad = source.references()
    assert [source.read_sample(reference).data for reference in good] == [b"photo", b"photo", b"inside"]
    with pytest.raises(ImageError, match="neither bytes nor a path"):
        source.read_sample(bad)


def test_an_image_column_alone_carries_nothing(tmp_path: Path) -> None:
    source = open_source(str(write(tmp_path / "x.parquet", pa.table({"image": [b"a"]}))))
    assert read_all(source) == {"x/0": (b"a", None)}
    assert source.carried is None


@pytest.mark.parametrize("pattern", ["", "/**/*.parquet", "/a/*.parquet", "/a/{0,1}.parquet"])
def test_several_files(tmp_path: Path, pattern: str) -> None:
    for name in ("0", "1"):
        write(tmp_path / "a" / f"{name}.parquet", pa.table({"image": [f"{name}{row}".encode() for row in range(4)]}))
    source = open_source(f"{tmp_path}{pattern}")
    below = "" if pattern.startswith("/a/") else "a/"
    expected = {f"{below}{name}/{row}": (f"{name}{row}".encode(), None) for name in "01" for row in range(4)}
    assert read_all(source) == expected


def test_files_in_other_file_systems(tmp_path: Path) -> None:
    write(tmp_path / "x.parquet", table())
    memory = open_folder(f"memory://{tmp_path.name}-parquet")
    memory.write("x.parquet", (tmp_path / "x.parquet").read_bytes())
    assert read_all(open_source(str(memory))) == read_all(open_source(str(tmp_path)))


def test_keys_of_a_column(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", table(id=pa.array([10, 11, 12, 13, 14, 15, 16])))
    source = open_source(str(path), Columns(key="id"))
    assert list(read_all(source)) == ["10", "11", "12", "13", "14", "15", "16"]
    assert [reference.source_uri for reference in source.references()][:2] == [f"{path}#row=0", f"{path}#row=1"]
    with pytest.raises(ValueError, match=r"--key-column is name, .*x\.parquet has image, label"):
        list(open_source(str(path), Columns(key="name")).references())
    path = write(tmp_path / "x.parquet", table(id=[None, *"abcdef"]))
    with pytest.raises(ValueError, match=r"row 0 of .* has no id"):
        list(open_source(str(path), Columns(key="id")).references())


def test_columns_of_uris_are_lists(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"image a")
    uris = ["photos/a.jpg", f"{tmp_path}/b.jpg", None, "s3://key:secret@bucket/c.jpg"]
    path = write(tmp_path / "list.parquet", pa.table({"url": uris, "caption": list("wxyz")}))
    source = open_source(str(path))
    references = list(source.references())
    assert [reference.key for reference in references] == ["photos/a.jpg", "b.jpg", "list/2", "bucket/c.jpg"]
    assert references[3].source_uri == "s3://bucket/c.jpg"
    sample = source.read_sample(references[0])
    assert (sample.data, sample.carried.as_py()) == (b"image a", {"caption": "w"})
    with pytest.raises(FileNotFoundError):
        source.read(references[1])
    with pytest.raises(ImageError, match="column url is null"):
        source.read(references[2])


@pytest.mark.parametrize(
    ("columns", "wanted", "expected"),
    [
        ({"image": pa.binary(), "mask": pa.binary()}, None, "image"),
        ({"image": pa.binary(), "mask": pa.large_binary()}, "mask", "mask"),
        ({"photo": pa.large_binary(), "url": pa.string()}, None, "photo"),
        ({"photo": pa.binary(), "url": pa.string()}, "url", "url"),
        ({"path": pa.string(), "uri": pa.string()}, None, "uri"),
        ({"image": pa.string(), "a": pa.binary(), "b": pa.binary()}, None, ValueError("several columns")),
        ({"a": pa.string(), "b": pa.int64()}, None, ValueError(r"there are a \(string\), b \(int64\)")),
        ({"a": pa.string(), "b": pa.int64()}, "b", ValueError("--image-column is b")),
        ({"a": pa.string()}, "c", ValueError("--image-column is c")),
    ],
)
def test_the_column_of_images(columns: dict[str, pa.DataType], wanted: str | None, expected: str | ValueError) -> None:
    schema = pa.schema(columns)
    if isinstance(expected, str):
        assert image_column(schema, wanted) == expected
    else:
        with pytest.raises(ValueError, match=str(expected)):
            image_column(schema, wanted)


def test_files_of_other_columns_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "0.parquet", pa.table({"image": [b"a"], "label": [1]}))
    write(tmp_path / "1.parquet", pa.table({"image": [b"a"], "label": ["one"]}))
    with pytest.raises(ValueError, match=r"1\.parquet has other columns than .*0\.parquet: .*label \(string\)"):
        list(open_source(str(tmp_path)).references())
    (tmp_path / "1.parquet").write_bytes(b"text")
    with pytest.raises(ValueError, match=r"1\.parquet is not a Parquet file"):
        list(open_source(str(tmp_path)).references())


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the row groups that are read."""
    groups: list[int] = []
    original = pq.ParquetFile.read_row_group

    def read_row_group(self: pq.ParquetFile, group: int, **options: Any) -> pa.Table:
        groups.append(group)
        return original(self, group, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", read_row_group)
    return groups


def test_large_row_groups_are_read_once_and_two_are_kept(
    tmp_path: Path, read: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.sources.parquet.MAX_KEPT_BYTES", 1)
    source = open_source(str(write(tmp_path / "x.parquet", table())))
    references = list(source.references())
    for row in (0, 3, 1, 4, 0, 5):  # threads that run ahead across the border of two groups
        source.read(references[row])
    assert read == [0, 1]
    assert len(source._groups._kept) == 2  # type: ignore[attr-defined]
    source.read(references[6])
    source.read(references[0])
    assert read == [0, 1, 2, 0]


def test_small_row_groups_are_kept_for_all_who_run_ahead(tmp_path: Path, read: list[int]) -> None:
    source = open_source(str(write(tmp_path / "x.parquet", table())))
    references = list(source.references())
    for row in (0, 6, 3, 1, 6, 4):
        source.read(references[row])
    assert read == [0, 2, 1]


def test_a_listing_reads_no_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [bytes([row]) * 100_000 for row in range(50)]
    write(tmp_path / "x.parquet", pa.table({"image": images, "id": list(range(50))}))
    num_bytes = 0
    original = LocalFolder.open

    class Counting:
        def __init__(self, file: Any) -> None:
            self._file = file

        def __getattr__(self, name: str) -> Any:
            return getattr(self._file, name)

        def __enter__(self) -> "Counting":
            return self

        def __exit__(self, *_: object) -> None:
            self._file.close()

        def read(self, size: int = -1) -> bytes:
            nonlocal num_bytes
            data: bytes = self._file.read(size)
            num_bytes += len(data)
            return data

    monkeypatch.setattr(LocalFolder, "open", lambda self, name: Counting(original(self, name)))
    assert len(list(open_source(str(tmp_path / "x.parquet"), Columns(key="id")).references())) == 50
    assert 0 < num_bytes < 500_000
