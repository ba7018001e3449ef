"""URIs: absolute, without secrets, and names that stay inside their folder."""

import os
import re

from pipeline.storage.secrets import USER_INFO

SCHEME = re.compile(r"^([a-z][a-z0-9+.-]*)://", re.IGNORECASE)


class UnsafeNameError(ValueError):
    """A name that would lead out of its folder."""


def absolute(uri: str) -> str:
    """Return a URI that means the same in every process: local paths absolute and without a scheme."""
    scheme = SCHEME.match(uri)
    if scheme is None or scheme[1].lower() in ("file", "local"):
        return os.path.abspath(SCHEME.sub("", uri))
    return uri


def check_name(name: str) -> str:
    """Return a name that stays below its folder.

    Raises:
        UnsafeNameError: the name is absolute or has an empty, `.` or `..` part.
    """
    if "\0" in name or any(part in ("", ".", "..") for part in name.split("/")):
        raise UnsafeNameError(f"name {name!r} would not stay inside its folder: expected a relative path without '..'")
    return name


def overlaps(uri: str, other: str) -> bool:
    """Return whether two URIs name the same place, or one a place inside of the other; links are followed."""
    first, second = _place(uri), _place(other)
    return f"{first}/".startswith(f"{second}/") or f"{second}/".startswith(f"{first}/")


def _place(uri: str) -> str:
    uri = absolute(uri)
    scheme = SCHEME.match(uri)
    if scheme is None:
        return os.path.realpath(uri).rstrip("/")
    path = "/".join(part for part in USER_INFO.sub(r"\1", uri)[scheme.end() :].split("/") if part)
    return f"{scheme[0].lower()}{path}"
