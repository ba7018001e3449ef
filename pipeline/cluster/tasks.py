"""The state of a shard until it is committed: how often its worker died, and which images are to blame."""

from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.console.exits import WorkError, describe_error
from pipeline.ledger.shard import Shard

MAX_CRASHES = 2  # of a shard, before its images are looked at
MAX_SEARCHES = 3  # for images that kill, in one shard


@dataclass
class Task:
    """A shard on its way to its marker, with what is known of the images that end its workers."""

    shard: Shard
    num_crashes: int = 0
    num_errors: int = 0
    num_searches: int = 0
    killers: set[int] = field(default_factory=set)  # positions
    accused: int | None = None  # the position whose worker died when it was alone, once so far
    suspects: list[list[int]] = field(default_factory=list)  # groups of positions; the last one is probed next

    def submit(self, actor: Any) -> Any:
        """Give the next piece of work to an actor: a probe while there are suspects, else the whole shard."""
        if not self.suspects:
            return actor.run(self.shard, frozenset(self.killers))
        items = tuple(self.shard.items[position] for position in self.suspects[-1])
        return actor.probe(replace(self.shard, items=items))

    def survived_probe(self) -> None:
        """Acquit the suspects that were probed."""
        self.suspects.pop()
        self.accused = None

    def crashed(self) -> None:
        """Try the shard once more, then halve groups of suspects until a killer is alone, and is so twice.

        Once is not enough: a process also dies of lost nodes and of neighbours that take its memory.

        Raises:
            WorkError: the worker dies again and again, but never of one image.
        """
        if self.suspects:
            positions = self.suspects.pop()
            if positions == [self.accused]:
                self.killers.update(positions)
            elif len(positions) == 1:
                (self.accused,) = positions
                self.suspects.append(positions)
            else:
                middle = len(positions) // 2
                self.suspects += [positions[middle:], positions[:middle]]
            return
        self.num_crashes += 1
        if self.num_crashes % MAX_CRASHES == 0:
            self.num_searches += 1
            if self.num_searches > MAX_SEARCHES:
                raise WorkError(
                    f"shard {self.shard.index} ends its worker again and again, but no image of it does so alone: "
                    "memory is probably short, try a smaller --num-workers"
                )
            self.suspects = [[p for p in range(len(self.shard.items)) if p not in self.killers]]

    def raised(self, error: BaseException) -> None:
        """Try once more; errors of images never come here, so this one concerns the output.

        Raises:
            WorkError: the same again.
        """
        self.num_errors += 1
        if self.num_errors == MAX_CRASHES:
            raise WorkError(f"shard {self.shard.index} cannot be done: {describe_error(error)}") from error
