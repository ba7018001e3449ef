"""A compressed dataset as a `torch` dataset: decoded images for training loops, without Ray."""

import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import distributed
from torch.utils.data import IterableDataset, get_worker_info

from bls.bitstream import MAX_PIXELS
from pipeline.read.dataset import CompressedDataset, StoredFile
from pipeline.read.images import ImageReader, in_order, reading_config

_MAX_WORKERS = 1024  # of a DataLoader: each counts in a place of its own, as they share no lock


class CompressedImages(IterableDataset[dict[str, Any]]):
    """Decode the images of a compressed dataset: a dictionary each, of `pipeline.read.dataset`'s columns.

    `transform` is applied to `image`. Every image is yielded once in an epoch, by one worker of one rank of
    torch.distributed: each of them reads a stretch of the dataset, equally long but for one image. With `drop_uneven`
    ranks yield the same number of images, and what is left over is not yielded.

    `shuffle` gives every epoch another order of the shards and of the images in each; call `set_epoch` before each.
    Damaged bitstreams raise BitstreamError, or with `skip_corrupt` are left out and counted in `num_skipped`.

    Raises:
        ValueError: there is no compressed dataset at `uri`, no such key or column, or another bundle compressed it.
    """

    def __init__(
        self,
        uri: str,
        *,
        transform: Callable[[npt.NDArray[np.uint8]], Any] | None = None,
        columns: Sequence[str] | None = None,
        keys: Collection[str] | None = None,
        where: str | None = None,
        bundle: str | None = None,
        device: str = "cpu",
        max_pixels: int = MAX_PIXELS,
        shuffle: bool = False,
        seed: int = 0,
        drop_uneven: bool = False,
        skip_corrupt: bool = False,
    ) -> None:
        dataset = CompressedDataset(uri)
        self._config = reading_config(
            dataset, columns=columns, bundle=bundle, device=device, max_pixels=max_pixels, skip_corrupt=skip_corrupt
        )
        self._files = dataset.files(dataset.select(keys=keys, where=where))
        dataset.check_columns(columns, self._files)
        self._transform = transform
        self._shuffle = shuffle
        self._seed = seed
        self._drop_uneven = drop_uneven
        # Workers of a DataLoader see these, also those that outlive an epoch.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self._skipped = torch.zeros(_MAX_WORKERS, dtype=torch.int64).share_memory_()
        self._reader: ImageReader | None = None
        self._rank = (0, 1)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the codec, which every process loads for itself; take along the rank, which workers do not know."""
        return {**self.__dict__, "_reader": None, "_rank": self._current_rank()}

    @property
    def num_images(self) -> int:
        """Return how many images an epoch has on this rank."""
        start, stop = self._stretch_of_rank()
        return stop - start

    @property
    def num_skipped(self) -> int:
        """Return how many damaged bitstreams the workers of this rank have left out so far."""
        return int(self._skipped.sum())

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next epoch."""
        self._epoch.fill_(epoch)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Decode this worker's part of an epoch."""
        worker = get_worker_info()
        number, num_workers = (worker.id, worker.num_workers) if worker is not None else (0, 1)
        if self._reader is None:
            self._reader = ImageReader(self._config)
        for name, rows in self._part(*_share(*self._stretch_of_rank(), number, num_workers)):
            for table, images in self._reader.read(name, rows):
                yield from self._samples(table, images)
            self._skipped[number % _MAX_WORKERS] += self._reader.take_num_skipped()

    def _samples(self, table: pa.Table, images: list[npt.NDArray[np.uint8]]) -> Iterator[dict[str, Any]]:
        for row, image in itertools.zip_longest(table.to_pylist(), images):
            sample = row or {}
            if image is not None:
                sample["image"] = image if self._transform is None else self._transform(image)
            yield {name: sample[name] for name in in_order(self._config.columns, sample)}

    def _part(self, start: int, stop: int) -> Iterator[tuple[str, Sequence[int]]]:
        """Return the files and rows of a stretch of the epoch, counted in images."""
        begin = 0
        for file, rows in self._epoch_order():
            part = rows[max(start - begin, 0) : max(stop - begin, 0)]
            begin += len(rows)
            if len(part):
                yield file.name, part

    def _epoch_order(self) -> Iterator[tuple[StoredFile, Sequence[int]]]:
        if not self._shuffle:
            yield from ((file, file.rows) for file in self._files)
            return
        epoch = int(self._epoch)
        for index in np.random.default_rng((self._seed, epoch)).permutation(len(self._files)):
            file = self._files[index]
            order = np.random.default_rng((self._seed, epoch, file.shard))
            yield file, order.permutation(np.asarray(file.rows)).tolist()

    def _stretch_of_rank(self) -> tuple[int, int]:
        rank, num_ranks = self._current_rank()
        num_images = sum(len(file.rows) for file in self._files)
        if self._drop_uneven:
            num_images -= num_images % num_ranks
        return _share(0, num_images, rank, num_ranks)

    def _current_rank(self) -> tuple[int, int]:
        if distributed.is_available() and distributed.is_initialized():
            return distributed.get_rank(), distributed.get_world_size()
        return self._rank


def _share(start: int, stop: int, number: int, count: int) -> tuple[int, int]:
    """Cut a stretch into as many of about equal length; return one of them."""
    length = stop - start
    return start + length * number // count, start + length * (number + 1) // count
