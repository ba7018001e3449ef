"""The manifest of an output: what it is made from, and its plans."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import Any

from pipeline.provenance import code_version


@dataclass(frozen=True)
class Plan:
    """A frozen list of inputs: the first one of an output, or one that a later run appended."""

    id: str = ""  # random
    num_images: int = 0
    num_shards: int = 0
    shard_size: int = 0
    keys_sha256: str = ""  # of the keys of all inputs in order as they were listed for it, older ones included
    carried: str = ""  # type of what the input has beside its images
    skipped: Mapping[str, int] = field(default_factory=dict)  # files not named like images: extension -> files
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Plan":
        """Read a plan from parsed JSON.

        Raises:
            ValueError: a value is of another type.
            TypeError: it is something else.
        """
        plan = cls(**value)
        _check_types(plan, cls())
        return plan


@dataclass(frozen=True)
class Manifest:
    """What an output is made from: two runs with the same job and settings write the same rows.

    `arguments` are those of the command that began it, with absolute paths and no credentials. Another release goes on
    with an output if its schema is the same: `code_version` is of the one that began it. Shards are numbered through
    all plans, in their order.
    """

    job: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    arguments: list[str] = field(default_factory=list)
    code_version: str = field(default_factory=code_version)
    plans: tuple[Plan, ...] = field(default_factory=lambda: (Plan(),))

    @property
    def id(self) -> str:
        """The id of the output, new with every overwrite: that of its first plan."""
        return self.plans[0].id

    @property
    def num_images(self) -> int:
        """The images of all plans."""
        return sum(plan.num_images for plan in self.plans)

    @property
    def num_shards(self) -> int:
        """The shards of all plans."""
        return sum(plan.num_shards for plan in self.plans)

    def to_json(self) -> dict[str, Any]:
        """Return what its file holds: the first plan alone, others have files of their own."""
        value = asdict(self)
        first, *_ = value.pop("plans")
        return {**value, "plan": first}

    @classmethod
    def from_json(cls, data: bytes) -> "Manifest":
        """Read the content of its file; raises as `Plan.from_json`, or KeyError."""
        value = json.loads(data)
        first = Plan.from_json(value.pop("plan", {}))
        manifest = cls(**{"job": value["job"], **value, "plans": (first,)})
        _check_types(manifest, cls())
        return manifest


def _check_types(value: Any, default: Any) -> None:
    for each in fields(value):
        found, expected = getattr(value, each.name), type(getattr(default, each.name))
        if not isinstance(found, expected):
            raise ValueError(f"{each.name} is {found!r}, expected {expected.__name__}")
