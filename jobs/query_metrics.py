"""Query the metrics of a compressed dataset: with SQL, or with a ready-made question."""

import csv
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO, TextIOWrapper
from typing import IO, Annotated, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import tyro

from jobs.options import CompressedFolder, check_at_least, parse
from pipeline.console.exits import ExitCode, UsageError, exit_code, usage
from pipeline.console.printing import say
from pipeline.console.streams import silence
from pipeline.read import queries as questions
from pipeline.read.queries import MetricsDatabase, QueryError
from pipeline.sources.opening import check_apart
from pipeline.storage.folder import Folder
from pipeline.storage.opening import open_folder
from pipeline.storage.secrets import redact
from pipeline.storage.uris import absolute

Format = Literal["table", "csv", "json", "parquet"]
_MAX_ROWS = 40  # of a table on a terminal; elsewhere all are written
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")
_WIDE = 10_000  # columns of text where nothing needs to fit


@dataclass(frozen=True)
class QueryMetrics:
    """Query the metrics of a compressed dataset with SQL (DuckDB), or with a ready-made question.

    Views: images (a row each), shards, failures, and carried, with the labels and other columns that the input has
    beside its images; with --against also other and changes. Without a query the summary is
    printed. Only committed rows are seen; nothing can be changed. Exit codes: 0 answered, 1 failed, 2 wrong usage.
    """

    input: CompressedFolder
    sql: Annotated[str | None, tyro.conf.Positional] = None
    """A query, such as "SELECT key, bpp FROM images WHERE psnr_db < 30"."""
    summary: bool = False
    """Show counts, sizes and quality by status; with --against, what changed."""
    by: str | None = None
    """Show the same by the values of a column, such as source_format, or of a carried one, such as label."""
    worst: int | None = None
    """Show this many of the worst images; with --against, of those that lost most."""
    worst_by: Literal["psnr_db", "ms_ssim", "bpp"] = "psnr_db"
    """Measure by which images are worst."""
    failures: bool = False
    """Show why images are quarantined; with --against, images whose status changed."""
    against: str | None = None
    """Output folder of another run, to compare with by key: changes are the first run's values minus this one's."""
    format: Format = "table"
    """Format of the rows."""
    output: str | None = None
    """File to write, a path or URI. Default: stdout."""
    overwrite: bool = False
    """Replace the --output that is there."""

    def __post_init__(self) -> None:
        check_at_least(1, worst=self.worst)
        asked: dict[str, object] = {"SQL": self.sql, "--summary": self.summary, "--by": self.by}
        asked |= {"--worst": self.worst, "--failures": self.failures}
        given = [name for name, value in asked.items() if value]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} are given, expected one question at a time")
        if self.by is not None and self.against is not None:
            raise ValueError("--by is not for comparisons: ask with SQL, as SELECT ... FROM changes GROUP BY ...")

    def question(self, database: MetricsDatabase) -> str:
        """Return the SQL that is asked for.

        Raises:
            QueryError: --by names no column.
        """
        if self.sql is not None:
            return self.sql
        if self.by is not None:
            columns = database.columns("images")
            carried = database.columns("carried") if "carried" in database.views else []
            if self.by not in (*columns, *carried):
                hint = "" if carried else f". {questions.NOTHING_CARRIED}"
                raise QueryError(f"--by is {self.by}, expected one of {', '.join([*columns, *carried[1:]])}{hint}")
            return questions.by_query(self.by, is_carried=self.by not in columns)
        compared = self.against is not None
        if self.worst is not None:
            query = questions.worst_changes_query if compared else questions.worst_query
            return query(self.worst, self.worst_by)
        if self.failures:
            return questions.changed_failures_query() if compared else questions.failures_query()
        return questions.changes_query() if compared else questions.summary_query()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job from the command line; return its exit code."""
    config = parse(QueryMetrics, arguments)
    return exit_code(lambda: query_metrics(config))


def query_metrics(config: QueryMetrics) -> ExitCode:
    """Answer, to stdout or a file."""
    with usage():
        _check_target(config)
        database = MetricsDatabase(config.input, against=config.against)
        relation = database.query(config.question(database))
    for state in database.states():
        say(state)
    if config.format == "parquet" and config.output is None and sys.stdout.isatty():
        raise UsageError("Parquet is not for a terminal: give --output FILE, or another --format")
    with _target(config.output) as file, usage(), database.answering():
        if config.format == "table":
            _write_table(relation, file, whole=config.output is not None or not sys.stdout.isatty())
        else:
            _WRITERS[config.format](database.batches(relation), file)
    return ExitCode.DONE


def _check_target(config: QueryMetrics) -> None:
    """Refuse a file that is there already, unless it is to be replaced, and one in a dataset.

    Raises:
        ValueError: names the file.
    """
    if config.output is None:
        return
    check_apart(config.output, *filter(None, (config.input, config.against)))
    folder, name = _folder_and_name(config.output)
    if not config.overwrite and folder.holds(name):
        raise ValueError(f"{redact(config.output)} is there already: use another --output, or --overwrite")


def _folder_and_name(uri: str) -> tuple[Folder, str]:
    folder, _, name = absolute(uri).rpartition("/")
    return open_folder(folder or "/"), name


@contextmanager
def _target(uri: str | None) -> Iterator[IO[bytes]]:
    """Open what takes the rows: stdout, which may close at any time, or a file that appears only when it is whole."""
    if uri is None:
        try:
            yield sys.stdout.buffer
            sys.stdout.flush()
        except BrokenPipeError:  # as `head` does when it has enough
            silence(sys.stdout)
        return
    with tempfile.TemporaryFile() as file:
        yield file
        file.seek(0)
        folder, name = _folder_and_name(uri)
        folder.write_from(name, file)


@contextmanager
def _text(file: IO[bytes]) -> Iterator[IO[str]]:
    text = TextIOWrapper(file, encoding="utf-8", newline="")
    try:
        yield text
    finally:
        text.detach()


def _write_table(relation: Any, file: IO[bytes], *, whole: bool) -> None:
    drawn = StringIO()
    with redirect_stdout(drawn):
        if whole:
            relation.show(max_rows=10**9, max_width=_WIDE, max_col_width=_WIDE)
        else:
            relation.show(max_rows=_MAX_ROWS, max_width=shutil.get_terminal_size().columns)
    with _text(file) as text:
        text.write(drawn.getvalue())


def _write_csv(batches: pa.RecordBatchReader, file: IO[bytes]) -> None:
    with _text(file) as text:
        writer = csv.writer(_Lines(text))
        writer.writerow(map(_cell, batches.schema.names))
        for batch in batches:
            for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                writer.writerow(map(_cell, row))


class _Lines:
    """Ends lines as the other formats do. The module `csv` quotes a `\\r` in a cell only where its lines end so."""

    def __init__(self, text: IO[str]) -> None:
        self._text = text

    def write(self, line: str) -> int:
        return self._text.write(line.removesuffix("\r\n") + "\n")


def _cell(value: Any) -> Any:
    """Return a value that a spreadsheet shows and does not run: a file may be called `=HYPERLINK(...)`."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA_STARTS) else value


def _write_json(batches: pa.RecordBatchReader, file: IO[bytes]) -> None:
    """Write an array with an object on each line."""
    with _text(file) as text:
        separator = "[\n"
        for batch in batches:
            for row in batch.to_pylist():
                text.write(separator + json.dumps(row, ensure_ascii=False, default=str))
                separator = ",\n"
        text.write("[]\n" if separator == "[\n" else "\n]\n")


def _write_parquet(batches: pa.RecordBatchReader, file: IO[bytes]) -> None:
    with pq.ParquetWriter(file, batches.schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch)


_WRITERS = {"csv": _write_csv, "json": _write_json, "parquet": _write_parquet}


if __name__ == "__main__":
    sys.exit(main())
