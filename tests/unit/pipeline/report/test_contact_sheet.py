import base64
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from bls.bundle import Bundle
from bls.codec import Codec
from pipeline.read.dataset import CompressedDataset
from pipeline.report.contact_sheet import contact_sheet
from pipeline.report.run import Row, gather
from tests.datasets import Sample, commit_instead, pixels, write_dataset


@pytest.fixture
def dataset(tiny_bundle: Path, tmp_path: Path) -> CompressedDataset:
    """Return five images in two shards, one of them quarantined."""
    samples = [Sample(f"{n}.png", pixels(64 + n, 80, gray=n == 3, seed=n)) for n in range(5)]
    write_dataset(tmp_path, tiny_bundle, [[replace(samples[0], status="empty"), *samples[1:3]], samples[3:]])
    return CompressedDataset(str(tmp_path))


def rows(dataset: CompressedDataset) -> list[Row]:
    return gather(dataset).sample


def test_pictures_are_the_thumbnails_in_the_order_of_the_rows(dataset: CompressedDataset, tiny_bundle: Path) -> None:
    codec = Codec.load(tiny_bundle)
    sheet = contact_sheet(dataset, codec, rows(dataset)[:3])
    assert [each.row for each in sheet] == rows(dataset)[:3]
    for each in sheet:
        number = int(each.row["key"][0])
        x = pixels(64 + number, 80, gray=number == 3, seed=number)
        small = codec.thumbnail(codec.compress(x, quality=4), scale=8)
        picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(each.picture.partition(",")[2]))))
        assert picture.shape == (*small.shape[:2], 3)
        expected = small if small.ndim == 3 else small[:, :, None]
        assert np.abs(picture.astype(int) - expected).mean() < 6  # WebP is lossy


def test_what_is_damaged_is_left_out(dataset: CompressedDataset, tiny_bundle: Path, tmp_path: Path) -> None:
    sampled = rows(dataset)
    marker = dataset.markers[1]
    path = tmp_path / marker.files["bitstreams"].name
    table = pq.read_table(path)
    stored = table.to_pylist()
    stored[0]["bitstream"] = stored[0]["bitstream"][:-1]
    commit_instead(dataset.output, marker, "bitstreams", table.from_pylist(stored, schema=table.schema))
    (tmp_path / dataset.markers[0].files["bitstreams"].name).unlink()
    sheet = contact_sheet(CompressedDataset(str(tmp_path)), Codec.load(tiny_bundle), sampled)
    assert [each.row["key"] for each in sheet] == ["4.png"]


def test_a_bundle_without_thumbnails_gives_none(dataset: CompressedDataset, tiny_bundle: Path) -> None:
    networks = [replace(network, thumbnails=None) for network in Codec.load(tiny_bundle).bundle.networks]
    assert contact_sheet(dataset, Codec(Bundle(networks)), rows(dataset)) == []
