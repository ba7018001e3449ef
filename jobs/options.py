"""Options that several jobs share, and what checks them."""

import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import fields
from typing import Any, TypeVar

import tyro

from pipeline.provenance import code_version
from pipeline.storage.secrets import redact

Config = TypeVar("Config")


def parse(kind: type[Config], arguments: Sequence[str] | None) -> Config:
    """Return a job's configuration from the command line, or print the version and end."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if "--version" in words:
        print(f"bls-codec {code_version()}")
        raise SystemExit(0)
    return tyro.cli(kind, args=words)


def check_at_least(minimum: int, **options: float | None) -> None:
    """Refuse numbers that are too small; None is an option that was left out.

    Raises:
        ValueError: names the option.
    """
    for name, value in options.items():
        if value is not None and value < minimum:
            raise ValueError(f"--{name.replace('_', '-')} is {value:g}, expected {minimum} or more")


def arguments_of(config: Any, *, leave_out: Collection[str] = ()) -> Iterator[str]:
    """Return the command line that a job's configuration comes from, without credentials."""
    for option in fields(config):
        value = getattr(config, option.name)
        if option.name not in leave_out and value != option.default:
            flag = f"--{option.name.replace('_', '-')}"
            yield from [flag] if value is True else [flag, redact(str(value))]
