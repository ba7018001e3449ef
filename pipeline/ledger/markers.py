"""Commit markers: the attempt at a shard that counts, with its files as they were written, and sums."""

import json
import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.ledger.summary import Summary
from pipeline.storage.uris import check_name


@dataclass(frozen=True, slots=True)
class Stint:
    """Who worked on a shard, as `host:process`, and when: seconds since 1970 by the clock of that host."""

    worker: str
    began: float
    ended: float

    @property
    def seconds(self) -> float:
        """Return how long it took."""
        return self.ended - self.began

    @classmethod
    def since(cls, began: float) -> "Stint":
        """Return the work of this process from a time of `time.monotonic` to now."""
        now = time.time()
        return cls(f"{socket.gethostname()}:{os.getpid()}", now - (time.monotonic() - began), now)


@dataclass(frozen=True, slots=True)
class CommittedFile:
    """A file that a marker names, below the output, and what it held when it was written; `sha256` is hexadecimal."""

    name: str
    num_bytes: int
    sha256: str

    def __post_init__(self) -> None:
        if [type(value) for value in (self.name, self.num_bytes, self.sha256)] != [str, int, str]:
            raise ValueError(f"expected name, size and hash of a file, not {self}")
        check_name(self.name)


@dataclass(frozen=True, slots=True)
class Marker:
    """The attempt at a shard that counts, with its files by their kind."""

    shard: int
    attempt: str
    files: Mapping[str, CommittedFile]
    summary: Summary
    retry: int = 0  # how often the shard's quarantined images were tried again
    stints: Sequence[Stint] = ()  # the work in it: one, and one more with each retry

    @property
    def name(self) -> str:
        """Return the name of its file."""
        return marker_name(self.shard, self.retry)

    @property
    def last_stint(self) -> Stint | None:
        """Return the work that committed it; None of older releases."""
        return self.stints[-1] if self.stints else None

    @classmethod
    def from_json(cls, data: bytes) -> "Marker":
        """Read a marker; of millions each name is kept once."""
        value = json.loads(data, object_pairs_hook=lambda pairs: {sys.intern(name): item for name, item in pairs})
        stints = tuple(Stint(**stint) for stint in value.get("stints", ()))
        files = {kind: CommittedFile(**file) for kind, file in value["files"].items()}
        summary = Summary.from_json(value["summary"])
        marker = cls(**{**value, "files": files, "summary": summary, "stints": stints})
        if not isinstance(marker.attempt, str):
            raise ValueError(f"attempt is {marker.attempt!r}, expected a name")
        _ = sum(stint.seconds for stint in stints)  # what is not a number is noticed here
        return marker


@dataclass
class Committed:
    """What is committed as far as one process has seen it, and sums.

    Of each shard the retry and attempt that count, and how many files that attempt has.
    """

    attempts: dict[int, tuple[int, str]] = field(default_factory=dict)
    num_files: dict[int, int] = field(default_factory=dict)
    total: Summary = field(default_factory=Summary)

    def add(self, marker: Marker) -> None:
        """Take note of the marker of a shard, the only one of it."""
        self.attempts[marker.shard] = marker.retry, marker.attempt
        self.num_files[marker.shard] = sum(marker.attempt in file.name for file in marker.files.values())
        self.total += marker.summary

    @property
    def last_retries(self) -> dict[int, int]:
        """Return the retry that counts of each shard."""
        return {shard: retry for shard, (retry, _) in self.attempts.items()}


def stem_of(shard: int, retry: int) -> str:
    return f"shard-{shard:06d}.retry-{retry}" if retry else f"shard-{shard:06d}"


def marker_name(shard: int, retry: int) -> str:
    return f"{stem_of(shard, retry)}.json"
