from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import pipeline
from bls.bitstream import Header
from bls.entropy.coders import coder_of
from pipeline.ledger.output import Output
from pipeline.read.images import DecodedSymbols
from pipeline.read.training.augment import CenterCrop, RandomResizedCrop
from pipeline.read.training.device import SymbolBatch
from tests.datasets import STRUCT, Sample, pixels, write_dataset

SHAPES = [(40, 50, False), (40, 50, True), (17, 90, False), (40, 50, False), (64, 30, True), (33, 49, False)]


@pytest.fixture(scope="module")
def dataset(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Output:
    samples = [
        Sample(f"{n}.png", pixels(height, width, gray=gray, seed=n), carried={"label": n})
        for n, (height, width, gray) in enumerate(SHAPES)
    ]
    return write_dataset(tmp_path_factory.mktemp("compressed"), tiny_bundle, [samples[:4], samples[4:]], carried=STRUCT)


def test_a_dataset_without_symbols_is_refused(dataset: Output, tiny_bundle: Path) -> None:
    for columns in (None, ["image"]):
        images = pipeline.CompressedImages(str(dataset), columns=columns, bundle=str(tiny_bundle))
        with pytest.raises(
            ValueError, match=r'make it with a column of them, as CompressedImages\(uri, columns=\["sym'
        ):
            pipeline.DeviceDecoder(images)
    with pytest.raises(ValueError, match="samples have key, image, expected symbols"):
        pipeline.collate_symbols([{"key": "a", "image": None}])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_images_are_those_that_a_worker_decodes(dataset: Output, tiny_bundle: Path, num_workers: int) -> None:
    whole = {s["label"]: s["image"] for s in pipeline.CompressedImages(str(dataset), bundle=str(tiny_bundle))}
    columns = ["symbols", "label"]
    images = pipeline.CompressedImages(str(dataset), columns=columns, bundle=str(tiny_bundle), shuffle=True)
    context = "fork" if num_workers else None
    loader = DataLoader(
        images,
        batch_size=3,
        num_workers=num_workers,
        collate_fn=pipeline.collate_symbols,
        multiprocessing_context=context,
    )
    seen = []
    for batch in map(pipeline.DeviceDecoder(images), loader):
        assert set(batch) == {"label", "image"}
        seen += batch["label"].tolist()
        for label, image in zip(batch["label"].tolist(), batch["image"], strict=True):
            expected = np.broadcast_to(whole[label].transpose(2, 0, 1), image.shape)
            # Batches of other sizes may be rounded otherwise.
            assert image.dtype == torch.uint8 and np.abs(image.numpy() - expected.astype(int)).max() <= 1
    assert sorted(seen) == list(range(6))


def test_a_network_trains_on_one_tensor_of_transformed_images(dataset: Output, tiny_bundle: Path) -> None:
    images = pipeline.CompressedImages(str(dataset), columns=["symbols", "label"], bundle=str(tiny_bundle))
    loader = DataLoader(images, batch_size=6, collate_fn=pipeline.collate_symbols)
    (batch,) = map(pipeline.DeviceDecoder(images, transform=RandomResizedCrop(24)), loader)
    x = batch["image"]
    assert x.shape == (6, 3, 24, 24) and x.dtype == torch.uint8
    network = torch.nn.Conv2d(3, 1, 3)
    network(x.float() / 255).sum().backward()
    assert network.weight.grad is not None and network.weight.grad.abs().sum() > 0
    (centre,) = map(pipeline.DeviceDecoder(images, transform=CenterCrop(16)), loader)
    (whole,) = map(pipeline.DeviceDecoder(images), loader)
    assert torch.equal(centre["image"][0], whole["image"][0][:, 12:28, 17:33])


@pytest.mark.parametrize(("largest", "kind"), [(127, torch.int8), (128, torch.int16), (-40000, torch.int32)])
def test_symbols_travel_as_the_smallest_integers(largest: int, kind: torch.dtype) -> None:
    header = Header(16, 32, gray=False, quality_index=1024, coder=coder_of("static"))
    values = np.arange(6, dtype=np.int32).reshape(3, 1, 2)
    batch = SymbolBatch.of([DecodedSymbols(header, values), DecodedSymbols(header, values * 0 + largest)])
    assert batch.values.dtype == kind
    (first_header, first), (_, second) = batch.on("cpu")
    assert first_header == header and first.tolist() == values.tolist() and second.tolist() == [[[largest] * 2]] * 3
