"""SQL over the committed rows of compress jobs: views for DuckDB, and the questions that are asked most.

    images     a row per input image: `pipeline.ledger.schema.METRICS`
    shards     a row per committed shard, from its marker
    failures   the quarantined images, with their reasons
    carried    what the input has beside each image that was compressed: labels, captions; a column each, without images
    other      the images of another run, and
    changes    both runs side by side, joined by key; a change is this run's value minus the other's

DuckDB scans the files through PyArrow, from any storage, and reads the columns that a query needs. It is kept from
everything else: a query writes nothing and opens nothing.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from pipeline.ledger.damage import check_committed
from pipeline.ledger.markers import Marker
from pipeline.ledger.output import Output
from pipeline.ledger.schema import METRICS, SOURCE_SIZES, STORED_SIZES
from pipeline.measures import MEASURES
from pipeline.read.carried import carried_columns
from pipeline.read.dataset import CompressedDataset
from pipeline.read.selection import read_metrics
from pipeline.read.sql import closed_connection
from pipeline.status import GOOD, Status

_IS_GOOD = f"status IN {tuple(map(str, GOOD))}"
_GOOD = f"FILTER (WHERE {_IS_GOOD})"
_SOURCE, _STORED = (
    f"sum({' + '.join(f'coalesce({name}, 0)' for name in names)}) {_GOOD}" for names in (SOURCE_SIZES, STORED_SIZES)
)
# The rate is all bits over all pixels: one tiny image can rule the mean of the images' own rates.
_MEANS = f"""count(*) AS images, round(8 * sum(num_bytes) {_GOOD} / sum(width::BIGINT * height) {_GOOD}, 3) AS bpp,
       round(avg(bpp) {_GOOD}, 3) AS mean_bpp, round(avg(psnr_db) {_GOOD}, 2) AS psnr_db"""
_FAILURES = f"""
SELECT key, source_uri, shard, status, error_class, error_message, width, height, mode, source_format, source_num_bytes
FROM images WHERE NOT {_IS_GOOD}"""

_CHANGES = """
SELECT key, i.status AS status, o.status AS other_status,
       coalesce(i.source_format, o.source_format) AS source_format,
       coalesce(i.width, o.width) AS width, coalesce(i.height, o.height) AS height,
       i.num_bytes AS num_bytes, o.num_bytes AS other_num_bytes,
       i.width::BIGINT * i.height AS num_pixels, o.width::BIGINT * o.height AS other_num_pixels,
       i.bpp AS bpp, o.bpp AS other_bpp, i.bpp - o.bpp AS bpp_change,
       i.psnr_db AS psnr_db, o.psnr_db AS other_psnr_db, i.psnr_db - o.psnr_db AS psnr_db_change,
       i.ms_ssim AS ms_ssim, o.ms_ssim AS other_ms_ssim, i.ms_ssim - o.ms_ssim AS ms_ssim_change
FROM images AS i FULL JOIN other AS o USING (key)"""


NOTHING_CARRIED = (
    "No column is carried beside these images. The compress job carries the other columns of Parquet input, and the "
    "other members of WebDataset tars, without being asked to; files in folders have none."
)


class QueryError(ValueError):
    """A query that cannot be answered; the message says what there is to ask for."""


class MetricsDatabase:
    """The committed rows of a run, and of another to compare it with, as views for SQL.

    Raises:
        ValueError: no compressed dataset there, of another release, nothing committed, or no DuckDB.
    """

    def __init__(self, uri: str, *, against: str | None = None) -> None:
        self._connection = closed_connection()
        import duckdb

        self._error = duckdb.Error
        self._datasets = [CompressedDataset(each) for each in (uri, against) if each is not None]
        with self.answering():
            for view, dataset in zip(("images", "other"), self._datasets, strict=False):
                self._connection.register(view, _committed(dataset.output, dataset.markers))
        self._connection.register("shards", _shards(self._datasets[0].markers))
        self._connection.execute(f"CREATE TEMP VIEW failures AS {_FAILURES}")
        self.views = ["images", "shards", "failures"]
        with self.answering():
            if (carried := carried_columns(self._datasets[0])) is not None:
                self._connection.register("carried", carried)
                self.views.append("carried")
        if against is not None:
            self._connection.execute(f"CREATE TEMP VIEW changes AS {_CHANGES}")
            self.views += ["other", "changes"]
        self._connection.execute("SET lock_configuration = true")

    def states(self) -> list[str]:
        """Say of which jobs the answers are about a part."""
        return [state for dataset in self._datasets if (state := dataset.state())]

    def query(self, sql: str) -> Any:
        """Return the result of a query as a relation of DuckDB.

        Raises:
            QueryError: the query is not SQL over the views, or gives no rows.
        """
        try:
            relation = self._connection.sql(sql)
        except self._error as error:
            raise QueryError(f"{error}\n{self._what_there_is()}") from error
        if relation is None:
            raise QueryError(f"{sql!r} gives no rows, expected a SELECT.\n{self._what_there_is()}")
        return relation

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Say what is wrong where the rows of a query cannot be read or made.

        Raises:
            DamagedFileError: a file of metrics is missing or damaged.
            QueryError: a value does not fit what the query does with it.
        """
        try:
            yield
        except (self._error, pa.ArrowException, OSError) as error:
            if getattr(error, "errno", None) is not None:  # of what the rows are written to
                raise
            for dataset in self._datasets:
                for _ in read_metrics(dataset.output, dataset.markers, columns=None):
                    pass
            raise QueryError(str(error)) from error

    def batches(self, relation: Any) -> pa.RecordBatchReader:
        """Run a relation, a batch of rows at a time; raises as `answering`."""
        with self.answering():
            return relation.to_arrow_reader()

    def columns(self, view: str) -> list[str]:
        """Return the names of a view's columns."""
        return list(self._connection.view(view).columns)

    def _what_there_is(self) -> str:
        views = "Views and their columns:\n" + "\n".join(
            f"  {view}: {', '.join(self.columns(view))}" for view in self.views
        )
        return views if "carried" in self.views else f"{views}\n{NOTHING_CARRIED}"


def summary_query() -> str:
    """Ask what became of the images, by status."""
    return f"""
SELECT status, {_MEANS}, round(min(psnr_db), 2) AS min_psnr_db, round(avg(ms_ssim), 4) AS ms_ssim,
       {_SOURCE}::BIGINT AS source_num_bytes, {_STORED}::BIGINT AS stored_num_bytes,
       (sum(num_bytes) {_GOOD})::BIGINT AS num_bytes
FROM images GROUP BY status ORDER BY images DESC, status"""


def by_query(column: str, *, is_carried: bool = False) -> str:
    """Ask how images fare by the values of a column, which may be one that is carried beside them."""
    images = "images"
    if is_carried:
        images = f"(SELECT images.*, carried.{_quoted(column)} FROM images LEFT JOIN carried USING (key))"
    return f"""
SELECT {_quoted(column)}, {_MEANS}, round(avg(ms_ssim), 4) AS ms_ssim,
       count(*) FILTER (status = '{Status.KEPT}') AS kept, count(*) FILTER (NOT {_IS_GOOD}) AS quarantined,
       round(100 - 100 * {_STORED} / {_SOURCE}, 1) AS saved_percent
FROM {images} GROUP BY {_quoted(column)} ORDER BY images DESC, {_quoted(column)}"""


def worst_query(count: int, measure: str) -> str:
    """Ask for the images that are worst by a measure, a key of `MEASURES`."""
    return f"""
SELECT key, width, height, mode, source_format, round(bpp, 3) AS bpp, round(psnr_db, 2) AS psnr_db,
       round(ms_ssim, 4) AS ms_ssim
FROM images WHERE {measure} IS NOT NULL ORDER BY images.{measure} {_worst_first(measure)}, key LIMIT {count:d}"""


def _worst_first(measure: str) -> str:
    return "ASC" if MEASURES[measure].higher_is_better else "DESC"


def failures_query() -> str:
    """Ask why images are quarantined, with an example of each reason."""
    return """
SELECT status, error_class, count(*) AS images, min(key) AS example, arg_min(error_message, key) AS error_message
FROM failures GROUP BY status, error_class ORDER BY images DESC, status"""


def changes_query() -> str:
    """Ask how two runs differ, by what became of the images in each; null: it does not have them."""
    return """
SELECT status, other_status, count(*) AS images,
       round(8 * sum(num_bytes) / sum(num_pixels), 3) AS bpp,
       round(8 * sum(other_num_bytes) / sum(other_num_pixels), 3) AS other_bpp,
       sum(num_bytes)::BIGINT AS num_bytes, sum(other_num_bytes)::BIGINT AS other_num_bytes,
       round(100 * (sum(num_bytes) / sum(other_num_bytes) - 1), 2) AS bytes_change_percent,
       round(avg(psnr_db_change), 3) AS psnr_db_change, round(min(psnr_db_change), 3) AS psnr_db_change_min,
       round(quantile_cont(psnr_db_change, 0.05), 3) AS psnr_db_change_p5,
       round(median(psnr_db_change), 3) AS psnr_db_change_median,
       round(quantile_cont(psnr_db_change, 0.95), 3) AS psnr_db_change_p95,
       round(avg(ms_ssim_change), 5) AS ms_ssim_change
FROM changes GROUP BY status, other_status ORDER BY images DESC, status, other_status"""


def worst_changes_query(count: int, measure: str) -> str:
    """Ask for the images that lost most by a measure against the other run."""
    return f"""
SELECT key, source_format, bpp, other_bpp, psnr_db, other_psnr_db, ms_ssim, other_ms_ssim, {measure}_change
FROM changes WHERE {measure}_change IS NOT NULL
ORDER BY {measure}_change {_worst_first(measure)}, key LIMIT {count:d}"""


def changed_failures_query() -> str:
    """Ask for the images that are quarantined, or absent, in one run and not in the other."""
    return "SELECT key, status, other_status FROM changes WHERE status IS DISTINCT FROM other_status ORDER BY key"


def _committed(output: Output, markers: Iterable[Marker]) -> ds.Dataset:
    """Return the metrics that markers name, read when they are asked for."""
    files = [marker.files["metrics"] for marker in markers]
    if not files:
        raise ValueError(f"{output} has no committed shard yet: let the job finish one")
    check_committed(output.folder, files)
    filesystem, path = output.folder.to_arrow()
    return ds.dataset(
        [f"{path}/{file.name}" for file in files], schema=METRICS, format="parquet", filesystem=filesystem
    )


def _shards(markers: Iterable[Marker]) -> pa.Table:
    rows = []
    for marker in markers:
        summary, last = marker.summary, marker.last_stint
        rows.append(
            {
                "shard": marker.shard,
                "retry": marker.retry,
                "images": summary.num_images,
                "kept": summary.num_kept,
                "quarantined": summary.num_quarantined,
                "num_pixels": summary.num_pixels,
                "source_num_bytes": summary.num_bytes_in,
                "stored_num_bytes": summary.num_bytes_out,
                "num_bytes": summary.num_bytes_images,
                "bpp": summary.total_bpp,
                "mean_bpp": summary.bpp.value,
                "psnr_db": summary.psnr_db.value,
                "ms_ssim": summary.ms_ssim.value,
                "seconds": sum(summary.stage_seconds.values()),
                "worker": last and last.worker,
                "began": last and datetime.fromtimestamp(last.began, UTC),
                "wall_seconds": last and last.seconds,
                "metrics_file": marker.files["metrics"].name,
                "bitstreams_file": marker.files["bitstreams"].name,
            }
        )
    return pa.Table.from_pylist(rows)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
