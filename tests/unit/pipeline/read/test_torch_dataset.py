import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch.utils.data import DataLoader, Subset, WeightedRandomSampler

import pipeline
from bls.bitstream import BitstreamError
from bls.bundle import load_bundle, save_bundle, shipped_bundle
from bls.codec import Codec
from bls.transforms.thumbnails import SCALES
from pipeline.ledger.bitstream_rows import Bitstreams
from pipeline.ledger.markers import CommittedFile
from pipeline.ledger.output import Output
from pipeline.read.dataset import CompressedDataset
from pipeline.read.torch_dataset import CompressedImages
from pipeline.storage.folder import Folder
from tests.bundles import small_network
from tests.datasets import MAP, STRUCT, Sample, commit_instead, pixels, write_dataset

DOCUMENT = Path(__file__).parents[4] / "docs" / "datasets.md"
NUM_IMAGES = [3, 1, 4, 2]


@pytest.fixture(scope="module")
def dataset(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Output:
    """Return ten images in four shards, labelled in order, the first of each shard gray."""
    numbers = iter(range(sum(NUM_IMAGES)))
    shards = [
        [
            Sample(f"{n}.png", pixels(16 + n, 20, gray=i == 0, seed=n), carried={"label": n}, psnr_db=20 + n)
            for i, n in zip(range(size), numbers, strict=False)
        ]
        for size in NUM_IMAGES
    ]
    return write_dataset(tmp_path_factory.mktemp("compressed"), tiny_bundle, shards, carried=STRUCT)


@pytest.fixture
def damaged(tiny_bundle: Path, tmp_path: Path) -> Output:
    """Return three images in two shards, the second one damaged."""
    x = pixels(16, 16)
    samples = [Sample(f"{n}.png", x, carried=[("cls", b"%d" % n)]) for n in range(3)]
    output = write_dataset(tmp_path, tiny_bundle, [samples[:2], samples[2:]], carried=MAP)
    marker = output.markers()[0]
    table = pq.read_table(tmp_path / marker.files["bitstreams"].name)
    rows = table.to_pylist()
    rows[1]["bitstream"] = rows[1]["bitstream"][:-1]
    commit_instead(output, marker, "bitstreams", table.from_pylist(rows, schema=table.schema))
    return output


def labels(images: Any) -> list[int]:
    return [sample["label"] for sample in images]


def test_images_come_decoded_with_what_was_carried(dataset: Output, tiny_bundle: Path) -> None:
    samples = list(pipeline.CompressedImages(str(dataset), bundle=str(tiny_bundle)))
    assert [sample["key"] for sample in samples] == [f"{n}.png" for n in range(10)]
    assert list(samples[0]) == ["key", "image", "width", "height", "label", "caption", "carried_key", "mask"]
    codec = Codec.load(tiny_bundle)
    table = pq.read_table(str(dataset.folder) + "/" + dataset.markers()[0].files["bitstreams"].name)
    for sample, bitstream in zip(samples, table["bitstream"].to_pylist(), strict=False):
        x_hat = codec.decompress(bitstream)
        assert np.array_equal(sample["image"], x_hat if x_hat.ndim == 3 else x_hat[:, :, None])
        assert (sample["height"], sample["width"]) == x_hat.shape[:2]
    assert [sample["image"].shape[2] for sample in samples[:4]] == [1, 3, 3, 1]


def test_images_of_a_job_that_is_not_finished_come_with_a_warning(
    dataset: Output, tiny_bundle: Path, tmp_path: Path
) -> None:
    partial = shutil.copytree(str(dataset.folder), tmp_path / "partial")
    (partial / "commits" / dataset.markers()[1].name).unlink()
    with pytest.warns(UserWarning, match="is not finished: 9 of 10 images are seen, 1 are left"):
        images = CompressedImages(partial, bundle=str(tiny_bundle))
    assert labels(images) == [0, 1, 2, 4, 5, 6, 7, 8, 9]


def test_any_bundle_with_the_model_reads_it(dataset: Output, tiny_bundle: Path, tmp_path: Path) -> None:
    low, high = load_bundle(tiny_bundle).networks
    save_bundle(tmp_path / "grown", [low, high, small_network(6)])
    samples = CompressedImages(str(dataset), bundle=str(tmp_path / "grown"), columns=["image"])
    expected = CompressedImages(str(dataset), bundle=str(tiny_bundle), columns=["image"])
    assert all(np.array_equal(a["image"], b["image"]) for a, b in zip(samples, expected, strict=True))
    save_bundle(tmp_path / "exchanged", [low, small_network(4, seed=9)])
    with pytest.raises(ValueError, match=r"was compressed with network .*, quality 4 of this bundle is .*: pass"):
        CompressedImages(str(dataset), bundle=str(tmp_path / "exchanged"))
    save_bundle(tmp_path / "without", [low])
    with pytest.raises(ValueError, match=r"quality is 4, the bundle serves 2"):
        CompressedImages(str(dataset), bundle=str(tmp_path / "without"))


def test_columns_keys_and_condition(dataset: Output, tiny_bundle: Path) -> None:
    def read(**options: Any) -> list[dict[str, Any]]:
        return list(CompressedImages(str(dataset), bundle=str(tiny_bundle), **options))

    assert read(columns=["label", "height"], keys=["7.png", "2.png"]) == [
        {"label": 2, "height": 18},
        {"label": 7, "height": 23},
    ]
    assert [list(sample) for sample in read(columns=["image"], where="psnr_db > 28")] == [["image"]]
    assert read(columns=["mode", "label"], where="psnr_db > 28") == [{"mode": None, "label": 9}]
    with pytest.raises(ValueError, match=r"has no column lable: expected some of key, .*, label, caption"):
        read(columns=["key", "lable"])


def test_one_string_is_not_a_list_of_names(dataset: Output, tiny_bundle: Path) -> None:
    with pytest.raises(
        TypeError, match=r"columns is the string 'image', expected a list of names: columns=\['image'\]"
    ):
        CompressedImages(str(dataset), bundle=str(tiny_bundle), columns="image")
    with pytest.raises(TypeError, match=r"keys is the string '2.png', expected a list of keys"):
        CompressedImages(str(dataset), bundle=str(tiny_bundle), keys="2.png")


def test_members_of_samples_are_columns_with_functions_of_their_own(tiny_bundle: Path, tmp_path: Path) -> None:
    """Some samples and files lack a member; one that no file has is refused, as a column of a table is."""
    x = pixels(16, 16)
    shards = [[Sample("0.png", x, carried=[("cls", b"7")]), Sample("1.png", x)]]
    shards += [[Sample("2.png", x, carried=[("cls", b"9"), ("json", b'{"a": 1}')])]]
    output = write_dataset(tmp_path, tiny_bundle, shards, carried=MAP)

    def read(**options: Any) -> list[dict[str, Any]]:
        return list(CompressedImages(str(output), bundle=str(tiny_bundle), **options))

    assert read(columns=["cls", "json"], transform={"cls": int, "json": json.loads}) == [
        {"cls": 7, "json": None},
        {"cls": None, "json": None},
        {"cls": 9, "json": {"a": 1}},
    ]
    assert [sample.get("cls") for sample in read(transform={"image": np.mean, "cls": int})] == [7, None, 9]
    with pytest.raises(ValueError, match=r"has no column label, jsn: expected some of key, .*, height, cls, json$"):
        read(columns=["image", "label", "cls", "jsn"])
    with pytest.raises(ValueError, match="has no column label"):
        read(transform={"label": int})
    with pytest.raises(ValueError, match=r"transform is for image, columns are cls: give a function for each"):
        read(columns=["cls"], transform=np.mean)


def test_few_of_many_files_are_looked_at_for_a_member(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = [[Sample(f"{n}.png", pixels(16, 16), carried=[("cls", b"7")])] for n in range(18)]
    output = write_dataset(tmp_path, tiny_bundle, shards, carried=MAP)
    read, names = Bitstreams.read, []

    def noted(folder: Folder, file: CommittedFile) -> Bitstreams:
        names.append(file.name)
        return read(folder, file)

    monkeypatch.setattr(Bitstreams, "read", noted)
    with pytest.raises(ValueError, match="has no column label"):
        CompressedImages(str(output), columns=["label"], bundle=str(tiny_bundle))
    assert len(names) == 9


def test_latents_are_what_the_image_is_made_of(dataset: Output, tiny_bundle: Path) -> None:
    codec = Codec.load(tiny_bundle)
    columns = ["latents", "symbols", "label", "image"]
    for sample in CompressedImages(str(dataset), columns=columns, bundle=str(tiny_bundle)):
        assert list(sample) == columns
        symbols, (height, width, _) = sample["symbols"], sample["image"].shape
        assert sample["latents"].dtype == np.float32
        assert sample["latents"].shape == (16, -(-height // 16), -(-width // 16)) == symbols.values.shape
        np.testing.assert_array_equal(codec.quantize(sample["latents"], quality=4), symbols.values)
        (x_hat,) = codec.synthesize([(symbols.header, symbols.values)])
        assert np.array_equal(sample["image"], x_hat if x_hat.ndim == 3 else x_hat[:, :, None])


def test_thumbnails_are_columns(dataset: Output, tiny_bundle: Path) -> None:
    codec = Codec.load(tiny_bundle)
    columns = ["thumbnail_8", "thumbnail_16", "symbols"]
    for sample in CompressedImages(str(dataset), columns=columns, bundle=str(tiny_bundle)):
        assert list(sample) == columns
        header = sample["symbols"].header
        for scale in SCALES:
            small = sample[f"thumbnail_{scale}"]
            (expected,) = codec.thumbnails([(header, sample["symbols"].values)], scale=scale)
            assert small.shape == (-(-header.height // scale), -(-20 // scale), 1 if header.gray else 3)
            assert np.array_equal(small.reshape(expected.shape), expected)


def test_only_committed_files_are_read(dataset: Output, tiny_bundle: Path) -> None:
    name = f"bitstreams/shard-000000.{'0' * 32}.parquet"
    dataset.folder.write(name, b"half a file")
    try:
        assert labels(CompressedImages(str(dataset), bundle=str(tiny_bundle))) == list(range(10))
    finally:
        dataset.folder.delete(name)


def test_transform_and_batches_of_workers(dataset: Output, tiny_bundle: Path) -> None:
    """Each image comes from one worker, and a worker that outlives an epoch learns of the next one."""
    images = CompressedImages(
        str(dataset),
        columns=["image", "label"],
        transform=lambda image: torch.from_numpy(image[:16, :16].mean((0, 1))[:1]),
        bundle=str(tiny_bundle),
        shuffle=True,
    )
    loader = DataLoader(images, batch_size=2, num_workers=2, persistent_workers=True, multiprocessing_context="fork")
    orders = []
    for epoch in range(2):
        images.set_epoch(epoch)
        batches = list(loader)
        assert all(batch["image"].shape == (len(batch["label"]), 1) for batch in batches)
        orders.append([label for batch in batches for label in batch["label"].tolist()])
    assert [sorted(order) for order in orders] == [list(range(10))] * 2
    assert orders[0] != orders[1]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_of_a_set_sorted_by_class_have_all_classes(tiny_bundle: Path, tmp_path: Path, num_workers: int) -> None:
    x = pixels(16, 16)
    shards = [[Sample(f"{label}/{n}.png", x, carried={"label": label}) for n in range(48)] for label in range(3)]
    output = write_dataset(tmp_path, tiny_bundle, shards, carried=STRUCT)
    images = CompressedImages(str(output), columns=["label"], bundle=str(tiny_bundle), shuffle=True)
    context = "fork" if num_workers else None
    for batch in DataLoader(images, batch_size=24, num_workers=num_workers, multiprocessing_context=context):
        counts = np.bincount(batch["label"], minlength=3)
        assert counts.min() >= 1 and counts.max() <= 16, counts  # 8 of each, give or take 3.5 standard deviations


def test_the_loop_of_the_documentation_runs_on_images_of_several_sizes(tmp_path: Path) -> None:
    (program,) = re.findall(r"^## In a training loop\n+```python\n(.*?)^```", DOCUMENT.read_text(), re.M | re.S)
    shapes = [(16, 90, True), (80, 70, False), (64, 64, True), (100, 50, False)]
    samples = [
        Sample(f"{n}.png", pixels(height, width, gray=gray), carried={"label": n})
        for n, (height, width, gray) in enumerate(shapes)
    ]
    write_dataset(tmp_path / "compressed", shipped_bundle(), [samples], carried=STRUCT)
    program += "assert x.shape == (4, 3, 64, 64) and sorted(label.tolist()) == [0, 1, 2, 3]"
    program = program.replace("num_workers=4", "num_workers=1")
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 7, 13])
@pytest.mark.parametrize("num_workers", [1, 3])
@pytest.mark.parametrize("shuffle", [False, True])
def test_every_image_belongs_to_one_worker_of_one_rank(
    dataset: Output, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, num_ranks: int, num_workers: int, shuffle: bool
) -> None:
    images = CompressedImages(str(dataset), columns=["label"], bundle=str(tiny_bundle), shuffle=shuffle, seed=1)
    counts = []
    seen: Counter[int] = Counter()
    for rank in range(num_ranks):
        monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
        monkeypatch.setattr("torch.distributed.get_rank", lambda rank=rank: rank)
        monkeypatch.setattr("torch.distributed.get_world_size", lambda: num_ranks)
        before = sum(seen.values())
        for worker in range(num_workers):
            monkeypatch.setattr(
                "pipeline.read.torch_dataset.get_worker_info", lambda worker=worker: _Info(worker, num_workers)
            )
            seen.update(labels(images))
        counts.append(sum(seen.values()) - before)
        assert counts[-1] == len(images) and images.num_images == 10
    assert seen == Counter(range(10))
    assert max(counts) - min(counts) <= 1


class _Info:
    def __init__(self, id: int, num_workers: int) -> None:
        self.id, self.num_workers = id, num_workers


def test_ranks_may_be_made_even(dataset: Output, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = CompressedImages(str(dataset), columns=["label"], bundle=str(tiny_bundle), drop_uneven=True)
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 4)
    parts = []
    for rank in range(4):
        monkeypatch.setattr("torch.distributed.get_rank", lambda rank=rank: rank)
        parts.append(labels(images))
    assert parts == [[0, 1], [2, 3], [4, 5], [6, 7]]


def test_the_rank_travels_to_workers_that_know_no_ranks(
    dataset: Output, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = CompressedImages(str(dataset), columns=["label"], bundle=str(tiny_bundle))
    with monkeypatch.context() as patched:
        patched.setattr("torch.distributed.is_initialized", lambda: True)
        patched.setattr("torch.distributed.get_rank", lambda: 1)
        patched.setattr("torch.distributed.get_world_size", lambda: 2)
        state = images.__getstate__()
    copy = CompressedImages.__new__(CompressedImages)
    copy.__dict__.update(state)
    assert labels(copy) == [5, 6, 7, 8, 9]


def test_orders_are_those_of_seed_and_epoch(dataset: Output, tiny_bundle: Path) -> None:
    def order(*, seed: int, epoch: int) -> list[int]:
        images = CompressedImages(str(dataset), columns=["label"], bundle=str(tiny_bundle), shuffle=True, seed=seed)
        images.set_epoch(epoch)
        return labels(images)

    first = order(seed=0, epoch=0)
    assert sorted(first) == list(range(10)) and first != sorted(first)
    assert order(seed=0, epoch=0) == first
    assert len({tuple(order(seed=seed, epoch=epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4


def test_single_images_and_samplers(dataset: Output, tiny_bundle: Path) -> None:
    images = CompressedImages(str(dataset), columns=["image", "label"], bundle=str(tiny_bundle), shuffle=True)
    expected = list(CompressedImages(str(dataset), columns=["image", "label"], bundle=str(tiny_bundle)))
    assert len(images) == images.num_images == 10
    for number in range(10):
        for sample in (images[number], images[number - 10], images[f"{number}.png"]):
            assert sample["label"] == number and np.array_equal(sample["image"], expected[number]["image"])
    assert [sample["label"] for sample in images.__getitems__([9, 0, "3.png", 9])] == [9, 0, 3, 9]
    with pytest.raises(IndexError, match="image 10 of 10: expected 0 to 9, or a key"):
        images[10]
    with pytest.raises(KeyError, match=r"has no image 'x\.png' among those that were selected"):
        images["x.png"]
    some = CompressedImages(str(dataset), columns=["label"], bundle=str(tiny_bundle), keys=["3.png", "7.png"])
    assert [some[0], some[1], some["7.png"]] == [{"label": 3}, {"label": 7}, {"label": 7}]
    with pytest.raises(KeyError, match=r"4\.png"):
        some["4.png"]
    sampler = WeightedRandomSampler([0.0] * 9 + [1.0], num_samples=4)
    loader = DataLoader(
        Subset(images, range(images.num_images)),
        batch_size=2,
        sampler=sampler,
        num_workers=1,
        multiprocessing_context="fork",
        collate_fn=labels,
    )
    assert list(loader) == [[9, 9], [9, 9]]


def test_a_damaged_image_is_an_error_by_itself(damaged: Output, tiny_bundle: Path) -> None:
    for skip_corrupt in (False, True):
        images = CompressedImages(str(damaged), bundle=str(tiny_bundle), skip_corrupt=skip_corrupt)
        assert images[0]["cls"] == b"0"
        with pytest.raises(BitstreamError, match=r"image 1\.png of "):
            images[1]


@pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes")
@pytest.mark.parametrize(("num_workers", "num_ranks"), [(0, 1), (2, 2), (3, 1)])
@pytest.mark.parametrize("shuffle", [False, True])
def test_an_epoch_goes_on_where_it_was_left(
    dataset: Output,
    tiny_bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    num_workers: int,
    shuffle: bool,
    num_ranks: int,
) -> None:
    """The state after any batch, as JSON keeps it, gives another process the batches that were to follow."""
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_rank", lambda: num_ranks - 1)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: num_ranks)

    def make() -> tuple[CompressedImages, DataLoader[Any]]:
        images = CompressedImages(
            str(dataset), columns=["label"], bundle=str(tiny_bundle), shuffle=shuffle, shuffle_buffer=4
        )
        context = "fork" if num_workers else None
        return images, DataLoader(images, batch_size=2, num_workers=num_workers, multiprocessing_context=context)

    def batches(loader: DataLoader[Any]) -> list[list[int]]:
        return [batch["label"].tolist() for batch in loader]

    images, loader = make()
    images.set_epoch(3)
    whole = batches(loader)
    for num_batches in (1, 3, len(whole)):
        state = json.loads(json.dumps(images.state_dict(loader, num_batches=num_batches)))
        later, later_loader = make()
        later.load_state_dict(state)
        later.set_epoch(state["epoch"])
        assert batches(later_loader) == whole[num_batches:]
        assert batches(later_loader) == whole  # once
    with pytest.raises(ValueError, match=f"num_batches is {len(whole) + 1}, an epoch has {len(whole)}"):
        images.load_state_dict(images.state_dict(loader, num_batches=len(whole) + 1))
    with pytest.raises(ValueError, match="expected num_batches"):
        images.state_dict(loader)
    later.load_state_dict(images.state_dict(loader, num_batches=1))
    later.set_epoch(4)
    images.set_epoch(4)
    assert batches(later_loader) == batches(loader)


def test_a_process_knows_how_far_it_is(dataset: Output, tiny_bundle: Path) -> None:
    def make(**options: Any) -> CompressedImages:
        return CompressedImages(str(dataset), columns=["image", "label"], bundle=str(tiny_bundle), **options)

    images = make(shuffle=True)
    whole = labels(images)
    iterator = iter(images)
    for number in range(1, 10):
        next(iterator)
        later = make(shuffle=True)
        later.load_state_dict(images.state_dict())
        assert labels(later) == whole[number:]
    with pytest.raises(ValueError, match=r"the state is of .*'seed': 0.*, this dataset has .*'seed': 1.*as it was"):
        make(shuffle=True, seed=1).load_state_dict(images.state_dict())
    loader = DataLoader(later, num_workers=2, multiprocessing_context="fork")
    later.load_state_dict(images.state_dict())
    with pytest.raises(ValueError, match="left by 1 workers, it is entered again by 2"):
        list(loader)


def test_batches_do_not_tell_what_was_left_out(damaged: Output, tiny_bundle: Path) -> None:
    images = CompressedImages(str(damaged), columns=["key", "image"], bundle=str(tiny_bundle), skip_corrupt=True)
    iterator = iter(images)
    assert [next(iterator)["key"], next(iterator)["key"]] == ["0.png", "2.png"]
    state = images.state_dict()
    assert list(iterator) == []
    with pytest.raises(ValueError, match="damaged images were left out"):
        images.state_dict(DataLoader(images), num_batches=1)
    images.load_state_dict(state)
    assert list(images) == []


def test_a_buffer_of_no_images_is_refused(dataset: Output, tiny_bundle: Path) -> None:
    with pytest.raises(ValueError, match="shuffle_buffer is 0: expected at least 1 image, or shuffle=False"):
        CompressedImages(str(dataset), bundle=str(tiny_bundle), shuffle=True, shuffle_buffer=0)


def test_damaged_bitstreams_are_told_or_counted(damaged: Output, tiny_bundle: Path) -> None:
    with pytest.raises(BitstreamError, match=r"image 1\.png of .*checksum"):
        list(CompressedImages(str(damaged), bundle=str(tiny_bundle)))
    images = CompressedImages(str(damaged), bundle=str(tiny_bundle), skip_corrupt=True)
    assert [(sample["key"], sample["cls"]) for sample in images] == [("0.png", b"0"), ("2.png", b"2")]
    assert images.num_skipped == 1
    list(images)
    assert images.num_skipped == 2


def test_skipped_images_of_workers_are_counted(damaged: Output, tiny_bundle: Path) -> None:
    images = CompressedImages(str(damaged), columns=["image"], bundle=str(tiny_bundle), skip_corrupt=True)
    loader = DataLoader(images, batch_size=None, num_workers=2, multiprocessing_context="fork")
    assert len(list(loader)) == 2 and images.num_skipped == 1


def test_what_is_no_compressed_dataset_of_this_bundle_is_refused(dataset: Output, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is not a compressed dataset: expected the --output of jobs/compress"):
        CompressedImages(str(tmp_path))
    with pytest.raises(ValueError, match="pass the bundle that compressed it"):
        CompressedImages(str(dataset))


def test_a_dataset_of_another_release_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"job": "compress", "settings": {"schema_version": 99}}')
    with pytest.raises(ValueError, match="has schema 99, this release reads"):
        CompressedDataset(str(tmp_path))
