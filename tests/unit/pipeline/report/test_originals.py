import tarfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from bls.codec import Codec
from pipeline.images import ImageError
from pipeline.read.dataset import CompressedDataset
from pipeline.read.images import ImageReader, reading_config
from pipeline.report.originals import Originals, Pair, Pairs
from pipeline.report.run import gather
from pipeline.sources.reading import read_encoded
from pipeline.sources.reference import ImageReference, Source
from tests.compressed import compress
from tests.datasets import pixels

Read = Callable[..., Pair]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a broken.png").write_bytes(b"")  # rows of bitstreams and of metrics differ
    for number in range(3):
        Image.fromarray(pixels(40, 50, gray=number == 1, seed=number)).save(folder / f"{number} ü.png")
    return folder


@pytest.fixture
def read(images: Path, tiny_bundle: Path, tmp_path: Path) -> Read:
    compress(images, tmp_path / "out", tiny_bundle)
    dataset = CompressedDataset(str(tmp_path / "out"))
    rows: dict[str, Any] = {row["key"]: row for row in gather(dataset).sample}
    reading = reading_config(dataset, columns=["key", "image", "icc_profile"], bundle=str(tiny_bundle))

    def pair(key: str, originals: str | None = None) -> Pair:
        source = Originals(dataset, uri=originals)
        source.fetch(list(rows.values()))
        return Pairs(dataset, ImageReader(reading), source).pair(rows[key])

    return pair


@pytest.mark.parametrize("number", [0, 1, 2])
def test_pairs_are_the_image_and_what_was_made_of_it(read: Read, tiny_bundle: Path, number: int) -> None:
    pair = read(f"{number} ü.png")
    x = pixels(40, 50, gray=number == 1, seed=number)
    codec = Codec.load(tiny_bundle)
    assert pair.x is not None and pair.x_hat is not None and pair.trouble == ""
    assert np.array_equal(pair.x, x)
    assert np.array_equal(pair.x_hat, codec.decompress(codec.compress(x, quality=4, coder="adaptive")))


def test_an_original_that_is_gone_or_another_is_told(read: Read, images: Path) -> None:
    (images / "0 ü.png").unlink()
    Image.fromarray(pixels(40, 50, seed=9)).save(images / "2 ü.png")
    gone, other = read("0 ü.png"), read("2 ü.png")
    assert gone.x is None and gone.x_hat is not None and "cannot be read" in gone.trouble
    assert other.x is None and other.x_hat is not None and "another image" in other.trouble


def test_originals_may_have_moved(read: Read, images: Path) -> None:
    moved = images.rename(images.with_name("moved"))
    assert "cannot be read" in read("0 ü.png").trouble
    assert read("0 ü.png", str(moved)).trouble == ""


def test_what_the_plan_does_not_have_cannot_be_read(read: Read, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="plan"):
        Originals(CompressedDataset(str(tmp_path / "out")), uri=None).read("other")


def test_a_server_that_is_gone_is_waited_for_once(read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many originals it has: all are asked for together, and what has not come in time is left out."""
    gone = threading.Event()

    def hang(source: Source, reference: ImageReference) -> bytes:
        if reference.key != "1 ü.png":
            gone.wait()
        return read_encoded(source, reference)

    monkeypatch.setattr("pipeline.report.originals.read_encoded", hang)
    dataset = CompressedDataset(str(tmp_path / "out"))
    originals = Originals(dataset, uri=None, seconds=0.5)
    rows = gather(dataset).sample
    originals.fetch(rows)
    start = time.monotonic()
    for key in ("0 ü.png", "2 ü.png"):
        with pytest.raises(ImageError, match=r"did not come within 0.5 s"):
            originals.read(key)
    assert originals.read("1 ü.png").shape == (40, 50)
    assert time.monotonic() - start < 5 and originals.num_missing == 2
    gone.set()


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_originals_inside_files_are_found(tiny_bundle: Path, tmp_path: Path, images: Path, kind: str) -> None:
    files = sorted(images.glob("* ü.png"))
    (tmp_path / "archives").mkdir()
    if kind == "tar":
        with tarfile.open(tmp_path / "archives" / "a.tar", "w") as tar:
            for number, file in enumerate(files):
                tar.add(file, f"{number}.png")
    else:
        table = pa.table({"image": [file.read_bytes() for file in files], "label": [1, 2, 3]})
        pq.write_table(table, tmp_path / "archives" / "a.parquet")
    compress(tmp_path / "archives", tmp_path / "out", tiny_bundle)
    dataset = CompressedDataset(str(tmp_path / "out"))
    originals, rows = Originals(dataset, uri=None), gather(dataset).sample
    originals.fetch(rows)
    found = sorted(originals.read(row["key"]).tobytes() for row in rows)
    assert found == sorted(np.asarray(Image.open(file)).tobytes() for file in files)
