"""Stars and braces in URIs: `photos/2019-*/*.jpg`, `photos/**/a.jpg`, `{000..099}.tar`, `{cats,dogs}/*.png`.

Of a glob's other characters none is special: `?` and `[` are ordinary in the names of object stores.
"""

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

_BRACES = re.compile(r"\{([^{}]*(?:\.\.|,)[^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def has_magic(uri: str) -> bool:
    """Return whether a URI has stars or braces."""
    return "*" in uri or _BRACES.search(uri) is not None


def expand_braces(pattern: str) -> Iterator[str]:
    """List what braces stand for, as a shell does: numbers keep the width of the first one."""
    parts = _BRACES.split(pattern)
    choices = [list(_choices(part)) if index % 2 else [part] for index, part in enumerate(parts)]
    return ("".join(chosen) for chosen in itertools.product(*choices))


def split_magic(uri: str) -> tuple[str, str]:
    """Split a URI into the folder above its first star or brace, and the pattern below that folder."""
    first = min(match.start() for match in (re.search(r"\*", uri), _BRACES.search(uri)) if match)
    folder, _, _ = uri[:first].rpartition("/")
    return folder or "/", uri[len(folder) + 1 :]


@dataclass(frozen=True)
class Glob:
    """Patterns of names below a folder; a folder that matches stands for all files in it."""

    patterns: Sequence[str]

    def matches(self, name: str) -> bool:
        """Return whether a file, or a folder above it, has one of the patterns."""
        return self._regex.fullmatch(name) is not None

    def enters(self, folder: str) -> bool:
        """Return whether a file below a folder may match."""
        return self.matches(folder) or self._prefix_regex.fullmatch(folder) is not None

    @cached_property
    def _regex(self) -> re.Pattern[str]:
        return re.compile(f"(?s:{'|'.join(map(_translate, self.patterns))})(?s:/.*)?")

    @cached_property
    def _prefix_regex(self) -> re.Pattern[str]:
        prefixes = {prefix for pattern in self.patterns for prefix in _prefixes(pattern)}
        return re.compile(f"(?s:{'|'.join(sorted(prefixes))})")


def _choices(braces: str) -> Iterator[str]:
    numbers = _RANGE.fullmatch(braces)
    if numbers is None:
        yield from braces.split(",")
    else:
        first, last = numbers.groups()
        step = 1 if int(first) <= int(last) else -1
        for number in range(int(first), int(last) + step, step):
            yield f"{number:0{len(first)}d}"


def _prefixes(pattern: str) -> Iterator[str]:
    """Return expressions for the folders on the way to what a pattern matches."""
    parts = pattern.split("/")
    for index in range(1, len(parts)):
        if "**" in parts[:index]:
            yield _translate("/".join(parts[: parts.index("**") + 1]))
            return
        yield _translate("/".join(parts[:index]))


def _translate(pattern: str) -> str:
    *folders, last = pattern.split("/")
    above = "".join("(?:.*/)?" if part == "**" else f"{_translate_part(part)}/" for part in folders)
    return above + (".*" if last == "**" else _translate_part(last))


def _translate_part(part: str) -> str:
    return "[^/]*".join(map(re.escape, re.split(r"\*+", part)))
