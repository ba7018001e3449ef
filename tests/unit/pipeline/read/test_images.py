"""Rows of files as images; tests of the datasets for torch and Ray show the columns."""

from collections import Counter
from pathlib import Path

import pytest

from pipeline.ledger.bitstream_rows import Bitstreams
from pipeline.ledger.markers import CommittedFile
from pipeline.read.dataset import CompressedDataset
from pipeline.read.images import ImageReader, StoredImage, reading_config
from pipeline.storage.folder import Folder
from tests.datasets import Sample, pixels, write_dataset


@pytest.fixture(scope="module")
def dataset(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> CompressedDataset:
    """Return six images of 16 x 16 pixels in two files."""
    samples = [Sample(str(n), pixels(16, 16, seed=n)) for n in range(6)]
    return CompressedDataset(
        str(write_dataset(tmp_path_factory.mktemp("compressed"), tiny_bundle, [samples[:3], samples[3:]]))
    )


def reader(dataset: CompressedDataset, tiny_bundle: Path) -> ImageReader:
    return ImageReader(reading_config(dataset, columns=["key", "image"], bundle=str(tiny_bundle)))


def test_rows_of_several_files_come_in_their_order_and_each_file_is_read_once(
    dataset: CompressedDataset, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: Counter[str] = Counter()
    read = Bitstreams.read

    def counted(folder: Folder, file: CommittedFile) -> Bitstreams:
        reads[file.name] += 1
        return read(folder, file)

    monkeypatch.setattr(Bitstreams, "read", counted)
    first, second = (file.file for file in dataset.files(dataset.select()))
    places = [(second, 2), (first, 1), (second, 0), (first, 1), (first, 0)]
    images = reader(dataset, tiny_bundle).load_many(places)
    assert [image.key for image in images] == ["5", "1", "3", "1", "0"]
    assert list(reads.values()) == [1, 1]


def test_batches_have_as_many_pixels_as_the_device_takes(dataset: CompressedDataset, tiny_bundle: Path) -> None:
    each = reader(dataset, tiny_bundle)
    file = dataset.files(dataset.select())[0].file
    (image,) = each.load(file, [0])
    assert image.num_pixels == 256 and StoredImage("", b"no bitstream", {}).num_pixels == 0
    most = each._config.codec.batch_pixels // 256
    assert [len(batch) for batch in each.batches([image] * (most + 3))] == [most, 3]
