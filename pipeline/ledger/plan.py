"""The frozen plans of a job: which inputs are compressed together, decided once and kept beside the output.

Planning holds the references of one plan file, and 16 bytes of each key to see whether it is the only one. What later
runs append (pipeline/ledger/append.py) is planned in the same way.
"""

import hashlib
import math
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields, replace
from itertools import chain, islice
from operator import attrgetter
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.ledger.damage import parse_table, parsing
from pipeline.ledger.manifest import Manifest, Plan
from pipeline.ledger.output import Output, OutputError, check_same
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
_LISTED_AT_ONCE = 10_000

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
        plan = _write_first_plan(output, source, shard_size, num_workers)
        stored = output.begin(replace(begun, plans=(plan,)))
        if stored.id == plan.id:
            return stored
    check_same(stored, begun, output=output)
    _check_same_inputs(stored, source, output)
    check_same_size(stored, shard_size, output)
    return stored


def copy_plan(output: Output, planned: Output, manifest: Manifest, *, begun: Manifest) -> Manifest:
    """Give an output the plans of another, which has this manifest: all of a new one, those that an old one lacks.

    Raises:
        DamagedFileError: a file of the plans is damaged.
        OutputError: the output was begun with other settings.
    """
    stored = output.manifest()
    if stored is None:
        output.check_writable()
        stored = output.begin(replace(begun, plans=(_copied(output, planned, manifest, 0),)))
    check_same(stored, begun, output=output)
    while (number := len(stored.plans)) < len(manifest.plans):
        stored = output.append(stored, _copied(output, planned, manifest, number))
    return stored


def check_same_size(stored: Manifest, shard_size: int | None, output: Output) -> None:
    """Refuse shards of another size than the first ones.

    Raises:
        OutputError: says both.
    """
    if shard_size not in (None, stored.plans[0].shard_size):
        raise OutputError(
            f"{output} was planned with --shard-size {stored.plans[0].shard_size}, now {shard_size}: "
            "leave the option out, use another --output, or --overwrite to delete what is there and begin again"
        )


def planned_shards(output: Output, manifest: Manifest, *, skip: set[int]) -> Iterator[Shard]:
    """Read the shards of the frozen plan in order, holding one plan file in memory at a time.

    Raises:
        DamagedFileError: a plan file is damaged, or one is missing.
    """
    for table in plan_tables(output, manifest):
        yield from _shards(table, skip)


def plan_tables(output: Output, manifest: Manifest) -> Iterator[pa.Table]:
    """Read the files of all plans in order, one at a time.

    Raises:
        DamagedFileError: a plan file is damaged, or one is missing.
    """
    names = list(list_names(output.folder.child("plan")))
    for plan in manifest.plans:
        yield from _part_tables(output, plan, names)


def default_size(num_images: int, num_workers: int) -> int:
    """Return the images of a shard where nobody said."""
    return min(max(math.ceil(num_images / (SHARDS_PER_WORKER * num_workers)), MIN_DEFAULT_SIZE), MAX_DEFAULT_SIZE)


class Listing:
    """The references of a source, counted and hashed as they pass."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._sha256 = hashlib.sha256()
        self._hashes: list[Hashes] = []
        self.num_images = 0

    def chunks(self, *, must_be_unique: bool = True) -> Iterator[Sequence[ImageReference]]:
        """List the references, some at a time; hashes of all keys are kept where each must be the only one."""
        for chunk in _chunks(iter(self._source.references()), _LISTED_AT_ONCE):
            keys = [reference.key for reference in chunk]
            self.num_images += len(chunk)
            self._sha256.update("".join(f"{key}\0" for key in keys).encode())
            if must_be_unique:
                self._hashes.append(hashes_of(keys))
            yield chunk

    def facts(self) -> dict[str, Any]:
        """Return what a plan says of the listing, when all references have passed.

        Raises:
            ValueError: two images have the same key.
        """
        skipped, carried = dict(self._source.skipped), self.carried
        if self._hashes:
            check_unique_keys(self._source, self._hashes)
        return {"keys_sha256": self.keys_sha256, "carried": carried, "skipped": skipped}

    @property
    def keys_sha256(self) -> str:
        """The hash of the keys that have passed."""
        return self._sha256.hexdigest()

    @property
    def carried(self) -> str:
        """The type of what is beside the images."""
        return "" if self._source.carried is None else str(self._source.carried)


def _write_first_plan(output: Output, source: Source, shard_size: int | None, num_workers: Callable[[], int]) -> Plan:
    listing = Listing(source)
    references = chain.from_iterable(listing.chunks())
    if (first := next(references, None)) is None:
        raise no_images(source)
    return write_plan(output, listing, chain([first], references), shard_size=shard_size, num_workers=num_workers)


def write_plan(
    output: Output,
    listing: Listing,
    references: Iterator[ImageReference],
    *,
    behind: Manifest | None = None,
    shard_size: int | None,
    num_workers: Callable[[], int],
) -> Plan:
    """Write the parts of a plan of references, which come from a listing; its shards are those behind a manifest's.

    Raises:
        ValueError: two images have the same key.
    """
    output.check_writable()
    if shard_size is None:
        shard_size, references = _default_size(references, num_workers())
    plan, start = Plan(uuid.uuid4().hex, shard_size=shard_size), behind.num_shards if behind else 0
    num_images, names = 0, list[str]()
    try:
        for part in _chunks(references, math.ceil(_PART_NUM_IMAGES / shard_size) * shard_size):
            shards = start + np.arange(num_images, num_images + len(part)) // shard_size
            names.append(_part_name(plan.id, len(behind.plans) if behind else 0, len(names)))
            output.folder.write(names[-1], table_to_parquet(_part_table(shards, part), metadata={"plan": plan.id}))
            num_images += len(part)
        facts = listing.facts()
    except ValueError:
        delete_many(output.folder, names)
        raise
    return replace(plan, num_images=num_images, num_shards=math.ceil(num_images / shard_size), **facts)


def _part_name(plan: str, number: int, part: int) -> str:
    return f"plan/{f'append-{number:05d}.' if number else ''}part-{part:05d}.{plan}.parquet"


def _part_table(shards: npt.NDArray[np.int64], references: Sequence[ImageReference]) -> pa.Table:
    columns = zip(*map(_REFERENCE_VALUES, references), strict=True)
    return pa.table([pa.array(shards, pa.int32()), *map(list, columns)], schema=PLAN)


def _default_size(references: Iterator[ImageReference], num_workers: int) -> tuple[int, Iterator[ImageReference]]:
    # Only a listing that ends early needs smaller shards: look that far ahead and no further.
    head = list(islice(references, MAX_DEFAULT_SIZE * SHARDS_PER_WORKER * num_workers))
    return default_size(len(head), num_workers), chain(head, references)


def _chunks(items: Iterator[_T], size: int) -> Iterator[tuple[_T, ...]]:
    while chunk := tuple(islice(items, size)):
        yield chunk


def _part_tables(output: Output, plan: Plan, names: Iterable[str]) -> Iterator[pa.Table]:
    """Read the parts of a plan in order, which are some of the names."""
    num_shards = 0
    for name in names:
        if name.endswith(f".{plan.id}.parquet"):
            table = parse_table(output.folder.read(f"plan/{name}"), PLAN, folder=output, name=f"plan/{name}")
            num_shards += len(_starts(table))
            yield table
    with parsing(output, "plan/"):
        if num_shards != plan.num_shards:
            raise ValueError(f"there are {num_shards} of {plan.num_shards} shards, a file is missing")


def _copied(output: Output, planned: Output, manifest: Manifest, number: int) -> Plan:
    """Copy the parts of a plan to another output under an id of their own."""
    original = manifest.plans[number]
    plan = replace(original, id=uuid.uuid4().hex, created=Plan().created)
    for part, table in enumerate(_part_tables(planned, original, list_names(planned.folder.child("plan")))):
        content = table_to_parquet(table, metadata={"plan": plan.id})
        output.folder.write(_part_name(plan.id, number, part), content)
    return plan


def _starts(table: pa.Table) -> list[int]:
    """Return the rows of a plan file at which its shards begin."""
    starts: list[int] = np.flatnonzero(np.diff(table.column("shard").to_numpy(), prepend=-1)).tolist()
    return starts


def _shards(table: pa.Table, skip: set[int]) -> Iterator[Shard]:
    """Return the shards of a plan file."""
    shards, references, starts = table.column("shard").to_numpy(), table.select(_REFERENCE_COLUMNS), _starts(table)
    for start, end in zip(starts, [*starts[1:], len(shards)], strict=True):
        if (index := int(shards[start])) not in skip:
            columns = (column.to_pylist() for column in references.slice(start, end - start).columns)
            yield Shard(index, tuple(map(ImageReference, *columns)))


def _check_same_inputs(stored: Manifest, source: Source, output: Output) -> None:
    listing, planned = Listing(source), stored.plans[-1]
    for _ in listing.chunks(must_be_unique=False):
        pass
    if (listing.keys_sha256, listing.carried) != (planned.keys_sha256, planned.carried):
        raise OutputError(
            f"{source} no longer holds the images that {output} was planned with: {stored.num_images} then, "
            f"{listing.num_images} now, or other names. Use another --output, or --overwrite to delete what is "
            "there; with --append, bls-compress takes what is new"
        )
