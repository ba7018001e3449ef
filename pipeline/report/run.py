"""The numbers of a report on a compress job: gathered from commit markers and one pass over the metrics.

In memory stay some thousand rows and the counts of histograms, whatever the size of the dataset.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.ledger.schema import SOURCE_SIZES, STORED_SIZES
from pipeline.ledger.summary import Summary
from pipeline.measures import MEASURES
from pipeline.read.dataset import CompressedDataset
from pipeline.read.selection import read_metrics
from pipeline.report.samples import Histogram, Numbers, SmallestRows
from pipeline.report.times import JobTimes, job_times
from pipeline.status import GOOD
from pipeline.storage.secrets import redact

Row = dict[str, Any]

MAX_SAMPLE = 2_000  # images that are points of a chart; medians are looked for among them, too
MAX_EXAMPLES = 5  # images that are named for a reason of quarantine
MAX_REASONS = 30
OTHERS = "others"
MAX_FORMATS = 7  # with "others": as many as the page has colours

_SAVING_BIN_PERCENT = 1.0
_RATE_BIN_DECADES = 0.005
_WIDE_DECADES = 1.5  # from here on an axis of rates is logarithmic
_COLUMNS = [
    *("key", "source_uri", "shard", "status", "error_class", "error_message", "width", "height", "mode"),
    *("source_format", "bpp", "mse_255", "psnr_db", "ms_ssim", "lmbda"),
    *sorted({*SOURCE_SIZES, *STORED_SIZES}),
]


@dataclass
class Reason:
    """Images that are quarantined for one error."""

    status: str
    error_class: str
    num_images: int = 0
    examples: list[Row] = field(default_factory=list)


@dataclass
class RunReport:
    """A compress job as far as it is committed."""

    total: Summary
    num_images_planned: int
    num_shards_planned: int
    settings: Mapping[str, Any]
    created: str
    code_version: str
    shards: Sequence[tuple[int, Summary]]
    times: JobTimes
    sample: list[Row] = field(default_factory=list)
    best: dict[str, Row] = field(default_factory=dict)
    median: dict[str, Row] = field(default_factory=dict)
    worst: dict[str, Row] = field(default_factory=dict)
    histograms: dict[str, Histogram] = field(default_factory=dict)
    savings: dict[str, Histogram] = field(default_factory=dict)  # percent of the source, by format, the largest first
    reasons: list[Reason] = field(default_factory=list)
    num_grown: int = 0  # images that take more bytes than their source
    lmbda: float | None = None

    @property
    def num_good(self) -> int:
        """Return how many images were compressed, or kept as they were."""
        return self.total.num_images - self.total.num_quarantined


def gather(dataset: CompressedDataset, *, seed: int = 0) -> RunReport:
    """Read the committed metrics once, some files at a time."""
    manifest, markers = dataset.manifest, dataset.markers
    run = RunReport(
        total=sum((marker.summary for marker in markers), Summary()),
        num_images_planned=manifest.num_images,
        num_shards_planned=manifest.num_shards,
        settings=manifest.settings,
        created=manifest.plans[0].created,
        code_version=manifest.code_version,
        shards=[(marker.shard, marker.summary) for marker in markers],
        times=job_times(markers),
    )
    good, bad = _GoodRows(seed), _BadRows(seed)
    for table in read_metrics(dataset.output, markers, columns=_COLUMNS):
        is_good = pc.is_in(table["status"], pa.array(GOOD, pa.string()))
        good.add(table.filter(is_good))
        bad.add(table.filter(pc.invert(is_good)))
    good.put_into(run)
    run.reasons = bad.reasons()
    return run


def _numbers(table: pa.Table, column: str) -> Numbers:
    """Return a column as floats; null is NaN."""
    numbers: Numbers = table[column].cast(pa.float64(), safe=False).to_numpy()
    return numbers


def _sum(table: pa.Table, columns: Sequence[str]) -> Numbers:
    numbers: Numbers = np.nansum([_numbers(table, column) for column in columns], axis=0)
    return numbers


class _GoodRows:
    """What is kept of the images that are stored."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._sample = SmallestRows(MAX_SAMPLE)
        self._low = {name: SmallestRows(1) for name in MEASURES}
        self._high = {name: SmallestRows(1) for name in MEASURES}
        self._histograms = {name: Histogram(measure.bin_width) for name, measure in MEASURES.items()}
        self._log_rates = Histogram(_RATE_BIN_DECADES, is_log=True)
        self._savings: dict[str, Histogram] = {}
        self._num_grown = 0

    def add(self, table: pa.Table) -> None:
        if not len(table):
            return
        self._sample.add(table, self._random.random(len(table)))
        for name in MEASURES:
            values = _numbers(table, name)
            self._histograms[name].add(values)
            self._low[name].add(table, values)
            self._high[name].add(table, -values)
        self._log_rates.add(_numbers(table, "bpp"))
        self._add_savings(table)

    def put_into(self, run: RunReport) -> None:
        run.sample = self._sample.rows()
        run.histograms, run.num_grown = self._histograms, self._num_grown
        if self._log_rates.decades >= _WIDE_DECADES:
            run.histograms["bpp"] = self._log_rates
        run.savings = _largest(self._savings)
        run.lmbda = run.sample[0]["lmbda"] if run.sample else None
        for name, measure in MEASURES.items():
            low, high = self._low[name].rows(), self._high[name].rows()
            if low:
                worst, best = (low, high) if measure.higher_is_better else (high, low)
                run.worst[name], run.best[name] = worst[0], best[0]
                run.median[name] = _nearest(run.sample, name, self._histograms[name].quantile(0.5)) or best[0]

    def _add_savings(self, table: pa.Table) -> None:
        percent = 100 * (1 - _sum(table, STORED_SIZES) / _sum(table, SOURCE_SIZES))
        self._num_grown += int((percent < 0).sum())
        formats = np.array([name or "unknown" for name in table["source_format"].to_pylist()])
        for name in np.unique(formats).tolist():
            histogram = self._savings.setdefault(name, Histogram(_SAVING_BIN_PERCENT))
            histogram.add(np.maximum(percent[formats == name], -100))


def _largest(histograms: Mapping[str, Histogram]) -> dict[str, Histogram]:
    """Return those with the most values first, the smallest of many as one."""
    ordered = sorted(histograms.items(), key=lambda item: -item[1].count)
    if len(ordered) <= MAX_FORMATS:
        return dict(ordered)
    rest = sum((each for _, each in ordered[MAX_FORMATS - 1 :]), Histogram(_SAVING_BIN_PERCENT))
    return {**dict(ordered[: MAX_FORMATS - 1]), OTHERS: rest}


class _BadRows:
    """What is kept of the images that are quarantined."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._counts: Counter[tuple[str, str]] = Counter()
        self._examples: dict[tuple[str, str], SmallestRows] = {}

    def add(self, table: pa.Table) -> None:
        classes = table["error_class"].to_pylist()
        reasons = list(zip(table["status"].to_pylist(), [name or "unknown" for name in classes], strict=True))
        for reason in sorted(set(reasons)):
            here = table.filter(pa.array([each == reason for each in reasons]))
            self._counts[reason] += len(here)
            if reason in self._examples or len(self._examples) < MAX_REASONS:
                kept = self._examples.setdefault(reason, SmallestRows(MAX_EXAMPLES))
                kept.add(here, self._random.random(len(here)))

    def reasons(self) -> list[Reason]:
        """Return the most frequent first; secrets are dropped once more, whoever wrote the rows."""
        return [
            Reason(status, error_class, count, [_redacted(row) for row in self._examples[status, error_class].rows()])
            for (status, error_class), count in self._counts.most_common()
            if (status, error_class) in self._examples
        ]


def _redacted(row: Row) -> Row:
    return {name: redact(value) if isinstance(value, str) else value for name, value in row.items()}


def _nearest(rows: Sequence[Row], name: str, value: float | None) -> Row | None:
    known = [row for row in rows if row[name] is not None]
    return min(known, key=lambda row: abs(row[name] - (value or 0)), default=None)
