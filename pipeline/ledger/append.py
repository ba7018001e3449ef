"""Append to an output: what is new in its input becomes further shards; what it has already is left alone."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain

from pipeline.ledger.known import KnownInputs
from pipeline.ledger.manifest import Manifest
from pipeline.ledger.output import Output, OutputError, check_same
from pipeline.ledger.plan import Listing, check_same_size, freeze_plan, plan_tables, write_plan
from pipeline.sources.reference import ImageReference, Source


@dataclass(frozen=True)
class Compared:
    """What is in an input and not yet in an output, or the other way round; keys are those of some."""

    num_new: int = 0
    num_known: int = 0
    num_vanished: int = 0
    vanished: tuple[str, ...] = ()
    num_moved: int = 0  # in another place of their tar or Parquet file than was planned
    moved: tuple[str, ...] = ()


class NewInputs:
    """The references of a source that an output does not have, in order."""

    def __init__(self, output: Output, manifest: Manifest, source: Source) -> None:
        self._output, self._manifest, self._source = output, manifest, source
        self._known = KnownInputs(plan_tables(output, manifest))
        self.listing = Listing(source)

    def references(self) -> Iterator[ImageReference]:
        """List them.

        Raises:
            OutputError: the input carries columns of another type than the output has.
        """
        for chunk in self.listing.chunks():
            yield from self._known.new(chunk)
        if self.listing.num_images and self.listing.carried != self._manifest.plans[0].carried:
            carried, now = self._manifest.plans[0].carried or "nothing", self.listing.carried or "nothing"
            raise OutputError(
                f"{self._source} carries {now} beside its images, {self._output} was begun with {carried}: use another "
                "--output"
            )

    def compared(self, num_new: int) -> Compared:
        """Return how the whole listing compares, of which so many are new."""
        known = self._known
        vanished = known.vanished(plan_tables(self._output, self._manifest)) if known.num_vanished else ()
        return Compared(
            num_new=num_new,
            num_known=self._manifest.num_images,
            num_vanished=known.num_vanished,
            vanished=tuple(vanished),
            num_moved=known.num_moved,
            moved=tuple(known.moved),
        )


def append_plan(
    output: Output,
    source: Source,
    *,
    begun: Manifest,
    shard_size: int | None,
    num_workers: Callable[[], int],
) -> tuple[Manifest, Compared]:
    """Plan what is new in a source as further shards of an output, or all of it where no run has begun.

    `begun` has the job and its settings. Of two runs at once one appends; the other one compares again with what is
    known then.

    Raises:
        OutputError: the output was begun with other settings.
        ValueError: the source has two images with the same key, or the output is new and the source has none.
    """
    while (stored := output.manifest()) is not None:
        check_same(stored, begun, output=output)
        check_same_size(stored, shard_size, output)
        inputs = NewInputs(output, stored, source)
        references = inputs.references()
        if (first := next(references, None)) is None:
            return stored, inputs.compared(0)
        plan = write_plan(
            output,
            inputs.listing,
            chain([first], references),
            behind=stored,
            shard_size=shard_size,
            num_workers=num_workers,
        )
        grown = output.append(stored, plan)
        if plan in grown.plans:
            return grown, inputs.compared(plan.num_images)
    planned = freeze_plan(output, source, begun=begun, shard_size=shard_size, num_workers=num_workers)
    return planned, Compared(num_new=planned.num_images)
