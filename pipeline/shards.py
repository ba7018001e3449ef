"""The frozen plan of a job: which inputs are compressed together, decided once and kept beside the output."""

import hashlib
import itertools
import math
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.output import Manifest, Marker, Output, OutputError, check_same
from pipeline.schema import PLAN, to_parquet
from pipeline.sources import ImageReference, Source
from pipeline.storage import list_names

MAX_DEFAULT_SIZE = 128  # images of a shard: about a minute of one CPU with photographs of a megapixel
MIN_DEFAULT_SIZE = 4  # with fewer, the stages of a worker would wait for each other
SHARDS_PER_WORKER = 4  # at least, so that all workers end at about the same time
_PART_NUM_IMAGES = 50_000  # of a plan file: some megabytes

_T = TypeVar("_T")


@dataclass(frozen=True)
class Shard:
    """A unit of work: inputs that are committed together; `replaces` is the marker of a shard that is done again."""

    index: int
    items: tuple[Any, ...]
    replaces: Marker | None = None

    @property
    def retry(self) -> int:
        """Return the number of this retry, 0 where the shard is done for the first time."""
        return 0 if self.replaces is None else self.replaces.retry + 1


def freeze_plan(
    output: Output,
    source: Source,
    *,
    job: str,
    settings: dict[str, Any],
    shard_size: int | None,
    num_workers: Callable[[], int],
) -> Manifest:
    """Write the plan of a new output, or check that an existing one was made from the same inputs and settings.

    Without a `shard_size` a few images are spread over the workers, whose number is asked for only then.

    Raises:
        OutputError: the output was begun with other inputs or settings.
        ValueError: the source has no images.
    """
    stored = output.manifest()
    if stored is None:
        manifest = replace(_write_plan(output, source, shard_size, num_workers), job=job, settings=settings)
        stored = output.begin(manifest)
        if stored.plan == manifest.plan:
            return stored
    check_same(stored, job=job, settings=settings, output=output)
    _check_same_inputs(stored, source, output)
    if shard_size not in (None, stored.shard_size):
        raise OutputError(
            f"{output} was planned with --shard-size {stored.shard_size}, now {shard_size}: "
            "leave the option out, use another --output, or --overwrite to delete what is there and begin again"
        )
    return stored


def planned_shards(output: Output, manifest: Manifest, *, skip: set[int]) -> Iterator[Shard]:
    """Read the shards of the frozen plan in order, holding one plan file in memory at a time."""
    plan = output.folder.child("plan")
    for name in list_names(plan):
        if f".{manifest.plan}." in name:
            yield from _read_part(plan.read(name), skip)


def default_size(num_images: int, num_workers: int) -> int:
    """Return the images of a shard where nobody said."""
    return min(max(math.ceil(num_images / (SHARDS_PER_WORKER * num_workers)), MIN_DEFAULT_SIZE), MAX_DEFAULT_SIZE)


class _Listing:
    """The references of a source, counted and hashed as they pass."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._sha256 = hashlib.sha256()
        self.num_images = 0

    def __iter__(self) -> Iterator[ImageReference]:
        for reference in self._source.references():
            self.num_images += 1
            self._sha256.update(reference.key.encode() + b"\0")
            yield reference

    @property
    def keys_sha256(self) -> str:
        return self._sha256.hexdigest()


def _write_plan(output: Output, source: Source, shard_size: int | None, num_workers: Callable[[], int]) -> Manifest:
    listing = _Listing(source)
    references = iter(listing)
    if (first := next(references, None)) is None:
        raise ValueError(f"input {source} has no images: expected files with names like photo.jpg or photo.png")
    references = itertools.chain([first], references)
    if shard_size is None:
        shard_size, references = _default_size(references, num_workers())
    plan = uuid.uuid4().hex
    num_shards = 0
    part_num_shards = math.ceil(_PART_NUM_IMAGES / shard_size)
    for part, shards in enumerate(_chunks(_shards(references, shard_size), part_num_shards)):
        rows = [{"shard": shard.index, **asdict(reference)} for shard in shards for reference in shard.items]
        output.folder.write(f"plan/part-{part:05d}.{plan}.parquet", to_parquet(rows, PLAN, metadata={"plan": plan}))
        num_shards += len(shards)
    return Manifest(
        plan=plan,
        num_images=listing.num_images,
        num_shards=num_shards,
        shard_size=shard_size,
        keys_sha256=listing.keys_sha256,
        skipped=dict(source.skipped),
    )


def _default_size(references: Iterator[ImageReference], num_workers: int) -> tuple[int, Iterator[ImageReference]]:
    # Only a listing that ends early needs smaller shards: look that far ahead and no further.
    head = list(itertools.islice(references, MAX_DEFAULT_SIZE * SHARDS_PER_WORKER * num_workers))
    return default_size(len(head), num_workers), itertools.chain(head, references)


def _shards(references: Iterator[ImageReference], size: int) -> Iterator[Shard]:
    for index, items in enumerate(_chunks(references, size)):
        yield Shard(index, items)


def _chunks(items: Iterator[_T], size: int) -> Iterator[tuple[_T, ...]]:
    while chunk := tuple(itertools.islice(items, size)):
        yield chunk


def _read_part(data: bytes, skip: set[int]) -> Iterator[Shard]:
    batches = pq.ParquetFile(pa.BufferReader(data)).iter_batches(batch_size=8192)
    rows = itertools.chain.from_iterable(batch.to_pylist() for batch in batches)
    for index, group in itertools.groupby(rows, key=lambda row: row.pop("shard")):
        if index not in skip:
            yield Shard(index, tuple(ImageReference(**row) for row in group))


def _check_same_inputs(stored: Manifest, source: Source, output: Output) -> None:
    listing = _Listing(source)
    for _ in listing:
        pass
    if listing.keys_sha256 != stored.keys_sha256:
        raise OutputError(
            f"{source} no longer holds the images that {output} was planned with: {stored.num_images} then, "
            f"{listing.num_images} now, or other names. Use another --output, or --overwrite to delete what is there"
        )
