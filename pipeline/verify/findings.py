"""What may be wrong with a compressed dataset, as rows of a table; docs/operations.md says what to do about each."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum

from pipeline.ledger.schema import VERIFICATION, to_parquet
from pipeline.ledger.summary import Summary


class Problem(StrEnum):
    """What is wrong."""

    DAMAGED_PLAN = "damaged_plan"
    """A file of the plan is missing, or was changed."""
    DAMAGED_MARKER = "damaged_marker"
    """A commit marker cannot be read, or is of a shard that the plan does not have."""
    MISSING_FILE = "missing_file"
    """A file that a marker names is not there."""
    WRONG_SIZE = "wrong_size"
    """A file has another size than its marker says."""
    WRONG_HASH = "wrong_hash"
    """A file has the size that its marker says, but another SHA-256."""
    UNREADABLE_FILE = "unreadable_file"
    """A file is not a Parquet file of the columns that it should have."""
    WRONG_KEYS = "wrong_keys"
    """The rows of a file are not those of the plan, or of the metrics."""
    WRONG_METRICS = "wrong_metrics"
    """The size of an image, or of what is stored of it, or whether it was kept, is not as its metrics say."""
    BAD_BITSTREAM = "bad_bitstream"
    """A bitstream does not decode to symbols, or these not to pixels."""
    BAD_ORIGINAL = "bad_original"
    """An original that was kept has another checksum, or cannot be decoded."""
    WRONG_PIXELS = "wrong_pixels"
    """The decoded image differs from its original by another error than the metrics have (only with --decode)."""

    @property
    def is_mended_by_a_rerun(self) -> bool:
        """Whether the compress job mends it when it does the shard again."""
        return self not in (Problem.DAMAGED_PLAN, Problem.WRONG_PIXELS)


@dataclass(frozen=True)
class Finding:
    """A problem, and what it is a problem of."""

    problem: Problem
    message: str
    shard: int | None = None
    file: str | None = None
    key: str | None = None


def findings_table(findings: Iterable[Finding], *, run: str) -> bytes:
    """Return a Parquet file of findings, a row each."""
    return to_parquet(map(asdict, findings), VERIFICATION, metadata={"job": "verify", "run": run})


def counts(findings: Sequence[Finding]) -> Summary:
    """Sum findings up: how many there are of each problem, with an example each."""
    examples = {each.problem.value: f"{each.key or each.file}: {each.message}" for each in reversed(findings)}
    return Summary(quarantined=dict(Counter(each.problem.value for each in findings)), examples=examples)
