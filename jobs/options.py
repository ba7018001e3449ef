"""Options that several jobs share: each is said, and checked, once.

Jobs embed the groups with `OmitArgPrefixes`, so that a flag is `--num-workers` whatever group it is in.
"""

import re
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Annotated, Any, Literal, TypeVar, get_type_hints

import tyro

from bls.bitstream import MAX_PIXELS
from pipeline.provenance import code_version
from pipeline.sources.opening import open_source
from pipeline.sources.reference import Columns, Source
from pipeline.storage.patience import Patience, have_patience
from pipeline.storage.secrets import redact
from pipeline.storage.uris import absolute

Config = TypeVar("Config")

_PATHS = ("input", "output", "bundle", "keys")
_OF_ONE_RUN = ("overwrite", "retry_quarantined", "log_json", "dry_run")

OutputFolder = Annotated[str, tyro.conf.arg(help="Folder to write to: a path or URI.")]
CompressedFolder = Annotated[str, tyro.conf.arg(help="Output folder of jobs/compress_dataset.py: a path or URI.")]
BundleOption = Annotated[
    str | None,
    tyro.conf.arg(
        help="Folder of fitted models, a path or URI; for a compressed dataset, those that compressed it. Default: the "
        "bundle that comes with the package."
    ),
]
ImageColumn = Annotated[
    str | None,
    tyro.conf.arg(
        help="Column that holds the images or their URIs (Parquet input), or extension of the members that are the "
        "images (tars), as left.jpg. Default: detected if exactly one qualifies."
    ),
]


@dataclass(frozen=True)
class InputOptions:
    """The images that a job reads."""

    input: str
    """Where the images are, a path or any URI that fsspec reads: a folder (searched with all folders in it), a pattern
    with stars, WebDataset tars (`{000..099}.tar`), Parquet files with a column of images, a list of URIs in a .txt or
    Parquet file, or one image file."""
    image_column: ImageColumn = None
    key_column: str | None = None
    """Column of unique names (Parquet input only). Default: the name of the file and the number of the row."""
    timeout: float = Patience.seconds
    """Seconds in which storage that does not answer is asked again; then the image is quarantined. A web server of a
    list is waited for once, not once for each image."""
    retries: int | None = None
    """How often a request is made again within that time. Default: as often as it fits."""
    max_pixels: int = MAX_PIXELS
    """Leave out images with more pixels than this, before they are decoded. Each gets a row that says so."""

    def __post_init__(self) -> None:
        check_at_least(1, max_pixels=self.max_pixels)
        check_at_least(0, timeout=self.timeout, retries=self.retries)

    def open(self) -> Source:
        """Open the images; storage is asked with the patience that is wanted from here on.

        Raises:
            ValueError: as `open_source`.
        """
        have_patience(self.patience)
        return open_source(self.input, self.columns)

    @property
    def patience(self) -> Patience:
        """How long storage that does not answer is asked again."""
        return Patience(self.timeout, self.retries)

    @property
    def columns(self) -> Columns:
        """The columns of Parquet input that are read."""
        return Columns(self.image_column, self.key_column)


@dataclass(frozen=True)
class WorkerOptions:
    """The workers of a job that runs no transform, on this machine or on the cluster of RAY_ADDRESS."""

    num_workers: int | None = None
    """Number of workers. Default: as many as the machine or cluster has room for."""
    cpus_per_worker: int = 1
    """CPUs of each worker, and threads that it uses."""

    def __post_init__(self) -> None:
        check_at_least(1, num_workers=self.num_workers, cpus_per_worker=self.cpus_per_worker)


@dataclass(frozen=True)
class ClusterOptions(WorkerOptions):
    """The workers of a job, on this machine or on the cluster of RAY_ADDRESS."""

    gpus_per_worker: float = 0
    """GPUs of each worker; above 0 the transforms run on a GPU."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(0, gpus_per_worker=self.gpus_per_worker)

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        """Where a worker runs the transforms."""
        return "cuda" if self.gpus_per_worker > 0 else "cpu"


@dataclass(frozen=True)
class RerunOptions:
    """What a run keeps of earlier runs, when it stops, and how it reports."""

    max_failures: int | None = None
    """Stop when more images than this are quarantined. Default: never."""
    retry_quarantined: bool = False
    """Try images again that an earlier run quarantined, for causes that have passed: a store that was down, a file
    that was mended, a worker short of memory. Settings stay as they were, and so do images that are done."""
    overwrite: bool = False
    """Delete what an earlier run left in the output, and begin again."""
    log_json: bool = False
    """Write what happens as JSON to stderr, an object per line, and nothing else; see docs/operations.md."""

    def __post_init__(self) -> None:
        check_at_least(0, max_failures=self.max_failures)


def parse(kind: type[Config], arguments: Sequence[str] | None) -> Config:
    """Return a job's configuration from the command line, or print the version and end."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if "--version" in words:
        print(f"bls-codec {code_version()}")
        raise SystemExit(0)
    return tyro.cli(kind, args=words)


def config_of(kind: type[Config], **options: Any) -> Config:
    """Return a job's configuration from options by the names of their flags, whatever group they are in.

    Raises:
        TypeError: there is no option of a name, or a required one is missing.
        ValueError: as the configuration.
    """
    config = _take(kind, options)
    if options:
        known = sorted(_names(kind))
        raise TypeError(f"there is no option {', '.join(options)}: expected some of {', '.join(known)}")
    return config


def _take(kind: type[Config], options: dict[str, Any]) -> Config:
    """Take the options of a configuration and of its groups out of all."""
    groups = _groups(kind)
    values = {each.name: options.pop(each.name) for each in fields(kind) if each.name in options}  # type: ignore[arg-type]
    return kind(**{name: _take(group, options) for name, group in groups.items()}, **values)


def _groups(kind: type) -> dict[str, type]:
    return {name: hint for name, hint in get_type_hints(kind).items() if is_dataclass(hint) and isinstance(hint, type)}


def _names(kind: type) -> Iterator[str]:
    groups = _groups(kind)
    for each in fields(kind):
        if each.name in groups:
            yield from _names(groups[each.name])
        else:
            yield each.name


def check_at_least(minimum: int, **options: float | None) -> None:
    """Refuse numbers that are too small; None is an option that was left out.

    Raises:
        ValueError: names the option.
    """
    for name, value in options.items():
        if value is not None and value < minimum:
            raise ValueError(f"--{name.replace('_', '-')} is {value:g}, expected {minimum} or more")


def share_of(text: str) -> float | None:
    """Return the part of a whole that a percentage such as `10%` stands for, None where it is not one."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)%", text)
    return float(match[1]) / 100 if match and float(match[1]) <= 100 else None


def lasting_arguments(config: Any) -> list[str]:
    """Return the command line that goes on with a job later, from any folder, without credentials."""
    return list(arguments_of(_with_absolute_paths(config), leave_out=_OF_ONE_RUN))


def _with_absolute_paths(config: Any) -> Any:
    values = {option.name: getattr(config, option.name) for option in fields(config)}
    groups = {name: _with_absolute_paths(value) for name, value in values.items() if is_dataclass(value)}
    paths = {name: absolute(values[name]) for name in _PATHS if values.get(name) is not None}
    return replace(config, **groups, **paths)


def arguments_of(config: Any, *, leave_out: Collection[str] = ()) -> Iterator[str]:
    """Return the command line that a job's configuration comes from, without credentials."""
    for option in fields(config):
        value = getattr(config, option.name)
        if is_dataclass(value):
            yield from arguments_of(value, leave_out=leave_out)
        elif option.name not in leave_out and value != option.default:
            flag = f"--{option.name.replace('_', '-')}"
            text = str(value).removesuffix(".0") if isinstance(value, float) else str(value)
            yield from [flag] if value is True else [flag, redact(text)]
