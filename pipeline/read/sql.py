"""DuckDB as both a condition and a query use it: it sees the tables that it is given, and nothing else."""

from typing import TYPE_CHECKING

from pipeline.extras import check_installed

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


def closed_connection() -> "DuckDBPyConnection":
    """Return a connection that reads no files and no variables of this program.

    Raises:
        ValueError: DuckDB is not installed.
    """
    check_installed("duckdb", extra="query", what="SQL over metrics")
    import duckdb

    return duckdb.connect(config={"enable_external_access": "false", "python_enable_replacements": "false"})
