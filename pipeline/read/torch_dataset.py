"""A compressed dataset as a `torch` dataset: decoded images for training loops, without Ray."""

from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import distributed
from torch.utils.data import IterableDataset, get_worker_info

from bls.bitstream import MAX_PIXELS
from pipeline.ahead import ahead
from pipeline.read.buffer import RowBuffer
from pipeline.read.dataset import CompressedDataset
from pipeline.read.images import ImageReader, StoredImage, reading_config
from pipeline.read.order import Order, Part, Place

SHUFFLE_BUFFER = 8192
_ROWS_AHEAD = 64  # of the one that is decoded, read by a thread
_MAX_WORKERS = 1024  # of a DataLoader: each counts in a place of its own, as they share no lock


class CompressedImages(IterableDataset[dict[str, Any]]):
    """Decode the images of a compressed dataset: a dictionary each, of `pipeline.read.dataset`'s columns.

    `transform` is applied to `image`. Every image is yielded once in an epoch, by one worker of one rank of
    torch.distributed: each of them reads a stretch of the dataset, equally long but for one image. With `drop_uneven`
    ranks yield the same number of images, and what is left over is not yielded.

    `shuffle` gives every epoch another order, made by `seed` and the number of the epoch: call `set_epoch` before each.
    Every worker mixes images of many files in a buffer of `shuffle_buffer` images, not decoded. docs/datasets.md has
    what that costs, and how well it mixes a dataset that is larger. Damaged bitstreams raise BitstreamError, or with
    `skip_corrupt` are left out and counted in `num_skipped`.

    Raises:
        ValueError: no compressed dataset is at `uri`, a key or column is unknown, or another bundle compressed it.
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
        shuffle_buffer: int = SHUFFLE_BUFFER,
        seed: int = 0,
        drop_uneven: bool = False,
        skip_corrupt: bool = False,
    ) -> None:
        dataset = CompressedDataset(uri)
        self._config = reading_config(
            dataset, columns=columns, bundle=bundle, device=device, max_pixels=max_pixels, skip_corrupt=skip_corrupt
        )
        files = dataset.files(dataset.select(keys=keys, where=where))
        dataset.check_columns(columns, files)
        if shuffle_buffer < 1:
            raise ValueError(f"shuffle_buffer is {shuffle_buffer}: expected at least 1 image, or shuffle=False")
        self._order = Order(files, shuffle_buffer if shuffle else 0, seed, drop_uneven)
        self._transform = transform
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
        start, stop = self._order.stretch(Place(*self._current_rank()))
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
        if self._reader is None:
            self._reader = ImageReader(self._config)
        place = self._place()
        rows = self._order.rows(int(self._epoch), place)
        for batch in self._reader.batches(_read(self._reader, rows)):
            for sample in self._reader.decode(batch):
                if sample is not None:
                    yield self._transformed(sample)
            self._skipped[place.worker % _MAX_WORKERS] += self._reader.take_num_skipped()

    def _transformed(self, sample: dict[str, Any]) -> dict[str, Any]:
        if self._transform is not None and "image" in sample:
            sample["image"] = self._transform(sample["image"])
        return sample

    def _place(self) -> Place:
        worker = get_worker_info()
        return Place(*self._current_rank(), *((worker.id, worker.num_workers) if worker is not None else (0, 1)))

    def _current_rank(self) -> tuple[int, int]:
        if distributed.is_available() and distributed.is_initialized():
            return distributed.get_rank(), distributed.get_world_size()
        return self._rank


def _read(reader: ImageReader, rows: Iterator[tuple[Part, int]]) -> Iterator[StoredImage]:
    """Read rows some way ahead of the one that is asked for."""
    buffer = RowBuffer(reader.load)
    with ThreadPoolExecutor(1) as executor:
        yield from ahead(executor, lambda row: buffer.take(*row), rows, window=_ROWS_AHEAD)
