"""The frozen plan of a job: which inputs are compressed together, decided once and kept beside the output.

Planning holds the references of one plan file, and 16 bytes of each key to see whether it is the only one.
"""

import hashlib
import itertools
import math
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from operator import attrgetter
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.ledger.damage import parse_table, parsing
from pipeline.ledger.output import Manifest, Output, OutputError, check_same
from pipeline.ledger.schema import PLAN, table_to_parquet
from pipeline.ledger.shard import Shard
from pipeline.sources.opening import no_images
from pipeline.sources.reference import ImageReference, Source
from pipeline.sources.unique_keys import Hashes, check_unique_keys, hashes_of
from pipeline.storage.folder import delete_many, list_names

MAX_DEFAULT_SIZE = 128  # images of a shard: about a minute of one CPU with photographs of a megapixel
MIN_DEFAULT_SIZE = 4  # with fewer, the stages of a worker would wait for each other
SHARDS_PER_WORKER = 4  # at least, so that all workers end at about the same time
_PART_NUM_IMAGES = 50_000  # of a plan file: some megabytes

_REFERENCE_COLUMNS = [field.name for field in fields(ImageReference)]
_REFERENCE_VALUES = attrgetter(*_REFERENCE_COLUMNS)

_T = TypeVar("_T")


def freeze_plan(
    output: Output,
    source: Source,
    *,
    begun: Manifest,
    shard_size: int | None,
    num_workers: Callable[[], int],
) -> Manifest:
    """Write the plan of a new output, or check that an existing one was made from the same inputs and settings.

    `begun` has the job and its settings. Without a `shard_size` a few images are spread over the workers, whose number
    is asked for only then.

    Raises:
        OutputError: the output was begun with other inputs or settings.
        ValueError: the source has no images, or two with the same key.
    """
    stored = output.manifest()
    if stored is None:
        manifest = _write_plan(output, source, begun, shard_size, num_workers)
        stored = output.begin(manifest)
        if stored.plan == manifest.plan:
            return stored
    check_same(stored, begun, output=output)
    _check_same_inputs(stored, source, output)
    if shard_size not in (None, stored.shard_size):
        raise OutputError(
            f"{output} was planned with --shard-size {stored.shard_size}, now {shard_size}: "
            "leave the option out, use another --output, or --overwrite to delete what is there and begin again"
        )
    return stored


def copy_plan(output: Output, planned: Output, manifest: Manifest, *, begun: Manifest) -> Manifest:
    """Give a new output the plan of another, which has this manifest, or check that an existing one was begun so.

    Raises:
        DamagedFileError: a file of the plan is damaged.
        OutputError: the output was begun with other settings.
    """
    stored = output.manifest()
    if stored is None:
        output.check_writable()
        plan = uuid.uuid4().hex
        for name, table, _ in _plan_files(planned, manifest):
            content = table_to_parquet(table, metadata={"plan": plan})
            output.folder.write(name.replace(manifest.plan, plan), content)
        planned_as = ("num_images", "num_shards", "shard_size", "keys_sha256", "skipped")
        stored = output.begin(replace(begun, plan=plan, **{name: getattr(manifest, name) for name in planned_as}))
    check_same(stored, begun, output=output)
    return stored


def planned_shards(output: Output, manifest: Manifest, *, skip: set[int]) -> Iterator[Shard]:
    """Read the shards of the frozen plan in order, holding one plan file in memory at a time.

    Raises:
        DamagedFileError: a plan file is damaged, or one is missing.
    """
    for _, table, starts in _plan_files(output, manifest):
        yield from _shards(table, starts, skip)


def default_size(num_images: int, num_workers: int) -> int:
    """Return the images of a shard where nobody said."""
    return min(max(math.ceil(num_images / (SHARDS_PER_WORKER * num_workers)), MIN_DEFAULT_SIZE), MAX_DEFAULT_SIZE)


class _Listing:
    """The references of a source, counted and hashed as they pass."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._sha256 = hashlib.sha256()
        self.num_images = 0

    def add(self, references: Sequence[ImageReference]) -> None:
        """Count and hash the next references."""
        self.num_images += len(references)
        self._sha256.update("".join(f"{reference.key}\0" for reference in references).encode())

    @property
    def keys_sha256(self) -> str:
        """The hash of all keys, and of the type of what is carried beside the images; valid when all have passed."""
        carried = self._source.carried
        whole = self._sha256.copy()
        whole.update(b"" if carried is None else f"\0{carried}".encode())
        return whole.hexdigest()


def _write_plan(
    output: Output, source: Source, begun: Manifest, shard_size: int | None, num_workers: Callable[[], int]
) -> Manifest:
    references = iter(source.references())
    if (first := next(references, None)) is None:
        raise no_images(source)
    output.check_writable()
    references = itertools.chain([first], references)
    if shard_size is None:
        shard_size, references = _default_size(references, num_workers())
    plan = uuid.uuid4().hex
    listing = _Listing(source)
    hashes: list[Hashes] = []
    names: list[str] = []
    try:
        for part in _chunks(references, math.ceil(_PART_NUM_IMAGES / shard_size) * shard_size):
            shards = np.arange(listing.num_images, listing.num_images + len(part)) // shard_size
            names.append(f"plan/part-{len(names):05d}.{plan}.parquet")
            output.folder.write(names[-1], table_to_parquet(_part_table(shards, part), metadata={"plan": plan}))
            listing.add(part)
            hashes.append(hashes_of([reference.key for reference in part]))
        skipped = dict(source.skipped)
        check_unique_keys(source, hashes)
    except ValueError:
        delete_many(output.folder, names)
        raise
    return replace(
        begun,
        plan=plan,
        num_images=listing.num_images,
        num_shards=math.ceil(listing.num_images / shard_size),
        shard_size=shard_size,
        keys_sha256=listing.keys_sha256,
        skipped=skipped,
    )


def _part_table(shards: npt.NDArray[np.int64], references: Sequence[ImageReference]) -> pa.Table:
    columns = zip(*map(_REFERENCE_VALUES, references), strict=True)
    return pa.table([pa.array(shards, pa.int32()), *map(list, columns)], schema=PLAN)


def _default_size(references: Iterator[ImageReference], num_workers: int) -> tuple[int, Iterator[ImageReference]]:
    # Only a listing that ends early needs smaller shards: look that far ahead and no further.
    head = list(itertools.islice(references, MAX_DEFAULT_SIZE * SHARDS_PER_WORKER * num_workers))
    return default_size(len(head), num_workers), itertools.chain(head, references)


def _chunks(items: Iterator[_T], size: int) -> Iterator[tuple[_T, ...]]:
    while chunk := tuple(itertools.islice(items, size)):
        yield chunk


def _plan_files(output: Output, manifest: Manifest) -> Iterator[tuple[str, pa.Table, list[int]]]:
    """Read the files of a plan in order: name, table, and the rows at which its shards begin."""
    num_shards = 0
    for name in list_names(output.folder.child("plan")):
        if f".{manifest.plan}." in name:
            table = parse_table(output.folder.read(f"plan/{name}"), PLAN, folder=output, name=f"plan/{name}")
            starts = np.flatnonzero(np.diff(table.column("shard").to_numpy(), prepend=-1)).tolist()
            num_shards += len(starts)
            yield f"plan/{name}", table, starts
    with parsing(output, "plan/"):
        if num_shards != manifest.num_shards:
            raise ValueError(f"there are {num_shards} of {manifest.num_shards} shards, a file is missing")


def _shards(table: pa.Table, starts: Sequence[int], skip: set[int]) -> Iterator[Shard]:
    """Return the shards of a plan file, which begin at these rows."""
    shards, references = table.column("shard").to_numpy(), table.select(_REFERENCE_COLUMNS)
    for start, end in zip(starts, [*starts[1:], len(shards)], strict=True):
        if (index := int(shards[start])) not in skip:
            columns = (column.to_pylist() for column in references.slice(start, end - start).columns)
            yield Shard(index, tuple(map(ImageReference, *columns)))


def _check_same_inputs(stored: Manifest, source: Source, output: Output) -> None:
    listing = _Listing(source)
    for chunk in _chunks(iter(source.references()), _PART_NUM_IMAGES):
        listing.add(chunk)
    if listing.keys_sha256 != stored.keys_sha256:
        raise OutputError(
            f"{source} no longer holds the images that {output} was planned with: {stored.num_images} then, "
            f"{listing.num_images} now, or other names. Use another --output, or --overwrite to delete what is there"
        )
