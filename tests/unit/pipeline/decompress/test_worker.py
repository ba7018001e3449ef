"""Containers of restored images, and what is carried; files of their own are in test_worker.py."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from bls.codec import Codec
from pipeline.decompress.containers import Container, tar_name
from pipeline.decompress.worker import DecompressionConfig, ShardDecompressor, StoredImage
from pipeline.huggingface import with_features
from pipeline.ledger.markers import Marker
from pipeline.ledger.output import Output
from pipeline.ledger.schema import RESTORED_IMAGES
from pipeline.ledger.shard import Shard
from pipeline.read.dataset import CompressedDataset
from pipeline.work.codec import CodecSpec
from tests.datasets import MAP, STRUCT, Sample, pixels, write_dataset

# The second is of another padded shape, so that batches change the order in which images come.
IMAGES = [pixels(20, 24, seed=1), pixels(70, 40, seed=2), pixels(18, 30, gray=True, seed=3)]


def samples(carried: list[Any], stems: tuple[str, ...] = ("a b/x", "a b/ü", "c")) -> list[Sample]:
    return [
        Sample(f"{stem}.jpg", image, carried=value, stem=stem)
        for stem, image, value in zip(stems, IMAGES, carried, strict=True)
    ]


def restore(dataset: Output, bundle: Path, output: Path, container: Container, rows: list[int]) -> Marker:
    config = DecompressionConfig(
        input=str(dataset),
        output=str(output),
        image_format="png",
        codec=CodecSpec.of(str(bundle), 4, max_pixels=10_000),
        container=container,
    )
    (stored,) = dataset.markers()
    shard = Shard(0, tuple(StoredImage(stored.files["bitstreams"], row) for row in rows))
    return ShardDecompressor(config).run(shard)


def members(output: Path, marker: Marker) -> dict[str, bytes]:
    contents = {}
    with tarfile.open(output / "images" / tar_name(marker.shard)) as archive:
        for info in archive:
            file = archive.extractfile(info)
            assert file is not None and info.name not in contents
            contents[info.name] = file.read()
    return contents


def rows_of(output: Path, marker: Marker) -> list[dict[str, Any]]:
    return pq.read_table(output / marker.files["metrics"].name).to_pylist()  # type: ignore[no-any-return]


def test_tars_hold_images_and_carried_members_in_the_order_of_the_shard(tiny_bundle: Path, tmp_path: Path) -> None:
    carried = [[("cls", b"1"), ("seg.png", b"mask")], [("cls", b"2")], None]
    dataset = write_dataset(tmp_path / "in", tiny_bundle, [samples(carried)], carried=MAP)
    out = tmp_path / "out"
    marker = restore(dataset, tiny_bundle, out, "webdataset", [0, 1, 2])
    contents = members(out, marker)
    assert list(contents) == ["a b/x.png", "a b/x.cls", "a b/x.seg.png", "a b/ü.png", "a b/ü.cls", "c.png"]
    assert (contents["a b/x.cls"], contents["a b/x.seg.png"], contents["a b/ü.cls"]) == (b"1", b"mask", b"2")
    codec = Codec.load(tiny_bundle)
    for name, image in zip(("a b/x.png", "a b/ü.png", "c.png"), IMAGES, strict=True):
        x_hat = codec.decompress(codec.compress(image, quality=4))
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(contents[name]))), x_hat)
    assert [row["path"] for row in rows_of(out, marker)] == ["a b/x.png", "a b/ü.png", "c.png"]
    restore(dataset, tiny_bundle, tmp_path / "again", "webdataset", [0, 1, 2])
    first, second = (folder / "images" / "000000.tar" for folder in (out, tmp_path / "again"))
    assert first.read_bytes() == second.read_bytes()


def test_a_tar_of_others_stays_and_a_tar_of_an_earlier_attempt_does_not(tiny_bundle: Path, tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "in", tiny_bundle, [samples([None] * 3)])
    tar = tmp_path / "out" / "images" / "000000.tar"
    tar.parent.mkdir(parents=True)
    tar.write_bytes(b"of others")
    with pytest.raises(FileExistsError, match="this job did not write"):
        restore(dataset, tiny_bundle, tmp_path / "out", "webdataset", [0, 1, 2])
    assert tar.read_bytes() == b"of others"
    tar.unlink()
    Output(str(tmp_path / "out")).record_written(0, [tar.name])  # by a worker that was killed as it wrote
    tar.write_bytes(b"half")
    marker = restore(dataset, tiny_bundle, tmp_path / "out", "webdataset", [0, 1, 2])
    assert len(members(tmp_path / "out", marker)) == 3


def test_carried_columns_become_members_too(tiny_bundle: Path, tmp_path: Path) -> None:
    carried = [
        {"label": 3, "caption": "ein Bär", "key": "id-1", "mask": b"m"},
        {"label": None, "caption": None, "key": None, "mask": None},
        None,
    ]
    dataset = write_dataset(tmp_path / "in", tiny_bundle, [samples(carried)], carried=STRUCT)
    contents = members(tmp_path / "out", restore(dataset, tiny_bundle, tmp_path / "out", "webdataset", [0, 1, 2]))
    assert list(contents) == ["a b/x.png", "a b/x.mask", "a b/x.json", "a b/ü.png", "c.png"]
    assert contents["a b/x.mask"] == b"m"
    assert json.loads(contents["a b/x.json"]) == {"label": 3, "caption": "ein Bär", "key": "id-1"}


def test_webdataset_takes_no_two_images_for_one(tiny_bundle: Path, tmp_path: Path) -> None:
    """It cuts names at the first dot of their last part."""
    dataset = write_dataset(tmp_path / "in", tiny_bundle, [samples([None] * 3, ("a.jpg", "a.png", "v1.0/a%2Ejpg"))])
    contents = members(tmp_path / "out", restore(dataset, tiny_bundle, tmp_path / "out", "webdataset", [0, 1, 2]))
    assert list(contents) == ["a%2Ejpg.png", "a%2Epng.png", "v1.0/a%252Ejpg.png"]


@pytest.mark.parametrize("container", ["webdataset", "parquet"])
def test_no_name_leads_out_of_an_archive(tiny_bundle: Path, tmp_path: Path, container: Container) -> None:
    dataset = write_dataset(tmp_path / "in", tiny_bundle, [samples([None] * 3, ("../x", "/x", "x"))])
    out = tmp_path / "out"
    marker = restore(dataset, tiny_bundle, out, container, [0, 1, 2])
    assert [row["status"] for row in rows_of(out, marker)] == ["unsafe_name", "unsafe_name", "ok"]
    if container == "webdataset":
        assert list(members(out, marker)) == ["x.png"]
    else:
        assert [row["path"] for row in pq.read_table(out / marker.files["images"].name)["image"].to_pylist()] == [
            "x.png"
        ]


def test_tables_say_what_hugging_face_said_of_the_input(tiny_bundle: Path, tmp_path: Path) -> None:
    features = {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    schema = pa.schema([("label", pa.int64())], {"huggingface": json.dumps({"info": {"features": features}})})
    carried = with_features(pa.struct(list(schema)), schema)
    values = [{"label": 1}, {"label": 0}, {"label": 1}]
    dataset = write_dataset(tmp_path / "in", tiny_bundle, [samples(values)], carried=carried)
    marker = restore(dataset, tiny_bundle, tmp_path / "out", "parquet", [0, 1, 2])
    restored = pq.read_schema(tmp_path / "out" / marker.files["images"].name)
    assert json.loads(restored.metadata[b"huggingface"]) == {"info": {"features": features}}
    # `datasets` takes a feature where the field is of its type, and may be null.
    assert restored.field("image").equals(pa.field("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])))


def test_hostile_and_clashing_members_are_told(tiny_bundle: Path, tmp_path: Path) -> None:
    carried = [[("/../../x", b"")], [("png", b"the image is this already")], [("txt", b"fine")]]
    dataset = write_dataset(tmp_path / "in", tiny_bundle, [samples(carried)], carried=MAP)
    out = tmp_path / "out"
    marker = restore(dataset, tiny_bundle, out, "webdataset", [0, 1, 2])
    assert [row["status"] for row in rows_of(out, marker)] == ["unsafe_name", "name_clash", "ok"]
    assert list(members(out, marker)) == ["c.png", "c.txt"]


def test_what_python_has_no_value_for_quarantines_its_image_alone(tiny_bundle: Path, tmp_path: Path) -> None:
    type_ = pa.struct([("when", pa.timestamp("us"))])
    when = pa.array([1, 2**62, 3], pa.timestamp("us"))  # the second is in the year 148108
    carried = list(pa.StructArray.from_arrays([when], fields=list(type_)))
    dataset = write_dataset(tmp_path / "in", tiny_bundle, [samples(carried)], carried=type_)
    statuses = {}
    for container in ("webdataset", "parquet"):
        out = tmp_path / container
        marker = restore(dataset, tiny_bundle, out, container, [0, 1, 2])
        statuses[container] = [row["status"] for row in rows_of(out, marker)]
    assert statuses == {"webdataset": ["ok", "failed", "ok"], "parquet": ["ok"] * 3}


def test_tables_hold_images_as_datasets_reads_them_and_carried_columns_flat(tiny_bundle: Path, tmp_path: Path) -> None:
    carried = [{"label": 3, "caption": "ein Bär", "key": "id-1", "mask": b"m"}, None, {"label": 5}]
    dataset = write_dataset(tmp_path / "in", tiny_bundle, [samples(carried)], carried=STRUCT)
    out = tmp_path / "out"
    table = pq.read_table(out / restore(dataset, tiny_bundle, out, "parquet", [0, 1, 2]).files["images"].name)
    assert table.column_names == [*RESTORED_IMAGES.names, "label", "caption", "carried_key", "mask"]
    assert table.schema.field("label").type == pa.int16()
    rows = table.to_pylist()
    assert [row["label"] for row in rows] == [3, None, 5]
    assert (rows[0]["key"], rows[0]["carried_key"], rows[0]["mask"]) == ("a b/x.jpg", "id-1", b"m")
    assert [row["image"]["path"] for row in rows] == ["a b/x.png", "a b/ü.png", "c.png"]
    for row, image in zip(rows, IMAGES, strict=True):
        restored = np.asarray(Image.open(io.BytesIO(row["image"]["bytes"])))
        assert (row["height"], row["width"]) == restored.shape[:2] == image.shape[:2]


def test_members_become_columns(tiny_bundle: Path, tmp_path: Path) -> None:
    carried = [[("cls", b"1")], None, [("txt", b"t"), ("cls", b"3")]]
    dataset = write_dataset(tmp_path / "in", tiny_bundle, [samples(carried)], carried=MAP)
    out = tmp_path / "out"
    table = pq.read_table(out / restore(dataset, tiny_bundle, out, "parquet", [0, 1, 2]).files["images"].name)
    assert table.select(["cls", "txt"]).to_pylist() == [
        {"cls": b"1", "txt": None},
        {"cls": None, "txt": None},
        {"cls": b"3", "txt": b"t"},
    ]


@pytest.mark.parametrize("container", ["files", "webdataset", "parquet"])
def test_selected_rows_alone_are_restored(tiny_bundle: Path, tmp_path: Path, container: Container) -> None:
    dataset = write_dataset(tmp_path / "in", tiny_bundle, [samples([{"label": i} for i in range(3)])], carried=STRUCT)
    out = tmp_path / "out"
    marker = restore(dataset, tiny_bundle, out, container, [0, 2])
    assert [row["key"] for row in rows_of(out, marker)] == ["a b/x.jpg", "c.jpg"]
    if container == "files":
        found = {str(path.relative_to(out / "images")) for path in (out / "images").rglob("*.png")}
        assert found == {"a b/x.png", "c.png"}
    elif container == "webdataset":
        assert json.loads(members(out, marker)["c.json"]) == {"label": 2}
    else:
        assert pq.read_table(out / marker.files["images"].name)["label"].to_pylist() == [0, 2]


def test_a_file_with_fewer_rows_is_no_whole_shard(tiny_bundle: Path, tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "in", tiny_bundle, [samples([None] * 3)])
    with pytest.raises(ValueError, match="has 3 rows, expected row 3"):
        restore(dataset, tiny_bundle, tmp_path / "out", "files", [2, 3])
    assert CompressedDataset(str(dataset)).manifest.job == "compress"
