"""A compressed dataset as a `torch` dataset: decoded images for training loops, without Ray."""

import itertools
import os
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

from torch import distributed
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from bls.bitstream import MAX_PIXELS, BitstreamError
from pipeline.ahead import ahead
from pipeline.read.dataset import CompressedDataset
from pipeline.read.images import ImageReader, StoredImage, reading_config
from pipeline.read.lookup import Lookup
from pipeline.read.training.buffer import RowBuffer
from pipeline.read.training.order import Order, Part, Place
from pipeline.read.training.progress import Batches, Progress
from pipeline.work.codec import CodecSpec

SHUFFLE_BUFFER = 8192
Transform = Callable[[Any], Any]
_ROWS_AHEAD = 64  # of the one that is decoded, read by a thread


class CompressedImages(IterableDataset[dict[str, Any]]):
    """Decode the images of a compressed dataset: a dictionary each, of `pipeline.read.images`' columns.

    `transform` is applied to `image`; or it has a function for each of several columns: `{"image": crop, "cls": int}`,
    since the members of WebDataset samples are bytes. A column that an image does not have is None.

    Every image is yielded once in an epoch, by one worker of one rank of torch.distributed: each of them reads a
    stretch of the dataset, equally long but for one image. With `drop_uneven` ranks yield the same number of images,
    and the images left over are not yielded.

    `shuffle` gives every epoch another order, made by `seed` and the number of the epoch: call `set_epoch` before each.
    Every worker mixes images of many files in a buffer of `shuffle_buffer` images, not decoded. docs/datasets.md has
    what that costs, and how well it mixes a dataset that is larger. Damaged bitstreams raise BitstreamError, or with
    `skip_corrupt` are left out and counted in `num_skipped`.

    `images[number]` and `images[key]` decode one image, in the order in which they are stored; for samplers of torch
    take `torch.utils.data.Subset(images, range(images.num_images))`. Of a job that is not finished, the images are read
    that are committed, with a warning.

    Raises:
        TypeError: columns or keys are one string.
        ValueError: no compressed dataset is at `uri`, a key or column is unknown, `transform` is of another column, or
            another bundle compressed it.
    """

    def __init__(
        self,
        uri: str | os.PathLike[str],
        *,
        transform: Transform | Mapping[str, Transform] | None = None,
        columns: Sequence[str] | None = None,
        keys: Collection[str] | None = None,
        where: str | None = None,
        bundle: str | None = None,
        device: str = "cpu",
        max_pixels: int = MAX_PIXELS,
        shuffle: bool = False,
        shuffle_buffer: int = SHUFFLE_BUFFER,
        seed: int = 0,
        drop_uneven: bool = False,
        skip_corrupt: bool = False,
    ) -> None:
        dataset = CompressedDataset(os.fspath(uri))
        if state := dataset.state():
            warnings.warn(state, stacklevel=2)
        self._config = reading_config(
            dataset, columns=columns, bundle=bundle, device=device, max_pixels=max_pixels, skip_corrupt=skip_corrupt
        )
        selection = dataset.select(keys=keys, where=where)
        self._transforms = _by_column(transform, columns)
        files = dataset.files(selection)
        dataset.check_columns(columns or list(self._transforms) or None, files, num_kept=selection.num_kept)
        if shuffle_buffer < 1:
            raise ValueError(f"shuffle_buffer is {shuffle_buffer}: expected at least 1 image, or shuffle=False")
        self._order = Order(files, shuffle_buffer if shuffle else 0, seed, drop_uneven)
        self._lookup = Lookup(dataset, files)
        self._progress = Progress()
        self._num_taken = 0  # rows of the epoch, in this process
        self._reader: ImageReader | None = None
        self._rank = (0, 1)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the codec, which every process loads for itself; keep the rank, which workers do not know."""
        return {**self.__dict__, "_reader": None, "_rank": self._current_rank()}

    @property
    def num_images(self) -> int:
        """Return how many images there are for all ranks together: `images[0]` to `images[num_images - 1]`."""
        return self._order.num_images

    @property
    def codec(self) -> CodecSpec:
        """Return the codec that decodes the images."""
        return self._config.codec

    @property
    def columns(self) -> tuple[str, ...] | None:
        """Return the columns that were asked for, None if none were."""
        return self._config.columns

    def __len__(self) -> int:
        """Return how many images an epoch has on this rank."""
        start, stop = self._order.stretch(Place(*self._current_rank()))
        return stop - start

    def __getitem__(self, which: int | str) -> dict[str, Any]:
        """Decode an image: by its number, in the order in which they are stored, or by its key.

        Raises:
            IndexError, KeyError: there is none.
            BitstreamError: it is damaged.
        """
        return self.__getitems__([which])[0]

    def __getitems__(self, which: Sequence[int | str]) -> list[dict[str, Any]]:
        """Decode several images; torch's DataLoader asks for a batch this way, of a Subset for example."""
        reader = self._open_reader()
        stored = reader.load_many([self._lookup.find(each) for each in which])
        samples = [sample for batch in reader.batches(stored) for sample in reader.decode(batch)]
        whole = [self._transformed(sample) for sample in samples if sample is not None]
        if len(whole) < len(stored):
            raise BitstreamError(f"image {stored[samples.index(None)].key} of {self._config.folder} is damaged")
        return whole

    @property
    def num_skipped(self) -> int:
        """Return how many damaged bitstreams the workers of this rank have left out so far."""
        return self._progress.num_skipped

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next epoch."""
        self._progress.epoch = epoch

    def state_dict(self, loader: DataLoader[Any] | None = None, *, num_batches: int | None = None) -> dict[str, Any]:
        """Return where an epoch is, for `load_state_dict`: plain numbers.

        With a DataLoader, whose workers read ahead, it is the place after `num_batches` of its batches. Without one it
        is the place after the images that this process has yielded.

        Raises:
            ValueError: the number of batches is not given, or does not say which images were in them.
        """
        state = {"epoch": self._progress.epoch, "num_ranks": self._current_rank()[1], "order": self._order.settings()}
        if loader is None:
            return {**state, "num_rows": self._num_taken, "num_workers": self._place().num_workers}
        if num_batches is None:
            raise ValueError("expected num_batches, the number of batches that the loop has had from the loader")
        if self.num_skipped or not loader.in_order:
            raise ValueError(
                "the number of batches does not say which images were in them, as damaged images were left out or "
                "batches come out of order: go on with the next epoch"
            )
        batches = Batches(num_batches, loader.batch_size or 1, loader.drop_last, max(loader.num_workers, 1))
        return {**state, "batches": asdict(batches)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another process left an epoch: with the same ranks and workers the same images follow.

        Raises:
            ValueError: the state has another order of images, or another number of ranks.
        """
        rank, num_ranks = self._current_rank()
        expected = {"num_ranks": num_ranks, "order": self._order.settings()}
        if (found := {name: state[name] for name in expected}) != expected:
            raise ValueError(f"the state is of {found}, this dataset has {expected}: make it as it was")
        self._progress.epoch = state["epoch"]
        if "batches" in state:
            batches = Batches(**state["batches"])
            places = [Place(rank, num_ranks, worker, batches.num_workers) for worker in range(batches.num_workers)]
            lengths = [stop - start for start, stop in map(self._order.stretch, places)]
            self._progress.go_on(batches.entries(lengths), batches.num_workers)
        else:
            worker = self._place().worker
            self._progress.go_on({worker: (worker, state["num_rows"])}, state["num_workers"])

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Decode this worker's part of an epoch."""
        reader, worker = self._open_reader(), self._place()
        place, self._num_taken = self._progress.enter(worker)
        stored = _read(reader, self._order.rows(self._progress.epoch, place), skip=self._num_taken)
        for batch in reader.batches(stored):
            for sample in reader.decode(batch):
                self._num_taken += 1
                if sample is not None:
                    yield self._transformed(sample)
            self._progress.skipped(worker.worker, reader.take_num_skipped())

    def _open_reader(self) -> ImageReader:
        if self._reader is None:
            self._reader = ImageReader(self._config)
        return self._reader

    def _transformed(self, sample: dict[str, Any]) -> dict[str, Any]:
        for name, transform in self._transforms.items():
            if sample.get(name) is not None:
                sample[name] = transform(sample[name])
        return sample

    def _place(self) -> Place:
        worker = get_worker_info()
        return Place(*self._current_rank(), *((worker.id, worker.num_workers) if worker is not None else (0, 1)))

    def _current_rank(self) -> tuple[int, int]:
        if distributed.is_available() and distributed.is_initialized():
            return distributed.get_rank(), distributed.get_world_size()
        return self._rank


def _by_column(
    transform: Transform | Mapping[str, Transform] | None, columns: Sequence[str] | None
) -> dict[str, Transform]:
    transforms = {"image": transform} if callable(transform) else dict(transform or {})
    if columns is not None and (unused := [name for name in transforms if name not in columns]):
        raise ValueError(
            f"transform is for {', '.join(unused)}, columns are {', '.join(columns)}: give a function for each column, "
            "as transform={'thumbnail_16': crop}"
        )
    return transforms


def _read(reader: ImageReader, rows: Iterator[tuple[Part, int]], *, skip: int) -> Iterator[StoredImage]:
    """Read rows ahead of the one that is asked for; the first `skip` rows are not read."""
    buffer = RowBuffer(reader.load)
    for part, row in itertools.islice(rows, skip):
        buffer.skip(part, row)
    with ThreadPoolExecutor(1) as executor:
        yield from ahead(executor, lambda row: buffer.take(*row), rows, window=_ROWS_AHEAD)
