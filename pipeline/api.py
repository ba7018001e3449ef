"""The jobs for programs and notebooks: options by the names of their flags, a result in the place of an exit code.

A process that uses Ray already keeps it; else the job starts Ray and ends it. The jobs stand above this package: this
module alone names them, and no other uses it.
"""

from typing import Any

from jobs import compress_dataset as compressing
from jobs import decompress_dataset as decompressing
from jobs.options import Config, config_of
from pipeline.cluster.run import Result
from pipeline.console.exits import WorkError

_OF_COMMANDS = frozenset(("dry_run", "log_json"))  # they are about what a command prints


def compress_dataset(input: str, output: str, **options: Any) -> Result:
    """Compress a dataset as jobs/compress_dataset.py does: `compress_dataset("photos", "compressed", quality=4)`.

    Raises:
        TypeError: there is no option of a name.
        UsageError: the job cannot begin as it was asked to.
        WorkError: it cannot go on; the same call goes on from what is committed.
    """
    return _whole(compressing.compress(_config(compressing.CompressDataset, input, output, options))[1])


def decompress_dataset(input: str, output: str, **options: Any) -> Result:
    """Restore a compressed dataset as jobs/decompress_dataset.py does; raises as `compress_dataset`."""
    return _whole(decompressing.decompress(_config(decompressing.DecompressDataset, input, output, options))[1])


def _whole(result: Result) -> Result:
    """Refuse to return where shards were left out; a command names all of them at its end."""
    if result.damage:
        raise WorkError(f"{len(result.damage)} shards were left out, all others are done: {result.damage[0]}")
    return result


def _config(kind: type[Config], input: str, output: str, options: dict[str, Any]) -> Config:
    if unfit := _OF_COMMANDS.intersection(options):
        raise TypeError(f"{', '.join(sorted(unfit))} is for the command line alone")
    return config_of(kind, input=input, output=output, **options)
