"""Options that several jobs share, and what checks them."""

from collections.abc import Collection, Iterator
from dataclasses import fields
from typing import Any

from pipeline.storage.secrets import redact


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
