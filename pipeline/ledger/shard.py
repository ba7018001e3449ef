"""A shard: the unit of work, of commit and of retry."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.ledger.markers import Marker, Stint


@dataclass(frozen=True)
class Shard:
    """A unit of work: inputs that are committed together; `replaces` is the marker of a shard that is done again.

    `quality` is that of all its images if each shard has its own, as under a budget.
    """

    index: int
    items: tuple[Any, ...]
    replaces: Marker | None = None
    quality: float | None = None

    @property
    def retry(self) -> int:
        """Return the number of this retry, 0 where the shard is done for the first time."""
        return 0 if self.replaces is None else self.replaces.retry + 1

    @property
    def keeps_rows(self) -> bool:
        """Whether the good rows of the shard that this one replaces stay as they are: not if the quality changes."""
        return self.replaces is None or self.quality in (None, self.replaces.summary.quality.value)

    @property
    def earlier_stints(self) -> Sequence[Stint]:
        """Return the work in a shard that is done again."""
        return () if self.replaces is None else self.replaces.stints
