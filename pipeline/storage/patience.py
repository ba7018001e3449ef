"""How long storage that does not answer is asked again.

A web server of a list that is gone is waited for once, not once for each of its images: it is given up for all of them,
and asked again from time to time.
"""

import time
from dataclasses import dataclass
from urllib.parse import urlsplit

SECONDS_BETWEEN_PROBES = 60.0


@dataclass(frozen=True)
class Patience:
    """Seconds in which a request is tried again, counted from its first try, and how often; None: as often as it fits.

    No try begins later.
    """

    seconds: float = 120.0
    retries: int | None = None

    def allows(self, num_tries: int) -> bool:
        """Return whether a request that was made so often may be made again."""
        return self.retries is None or num_tries <= self.retries


class Host:
    """A server, as all requests of this process know it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._failing_since: float | None = None
        self._next_probe: float | None = None  # while it is given up

    def answered(self) -> None:
        """Note that it answers, whatever it says."""
        self._failing_since = self._next_probe = None

    def failing_since(self) -> float:
        """Note that it does not answer; return when that began."""
        if self._failing_since is None:
            self._failing_since = time.monotonic()
        return self._failing_since

    def give_up(self) -> None:
        """Note that it was asked for long enough."""
        self._next_probe = time.monotonic() + SECONDS_BETWEEN_PROBES

    def may_be_asked(self) -> bool:
        """Return whether it is not given up; one request goes through from time to time."""
        if self._next_probe is None:
            return True
        if time.monotonic() < self._next_probe:
            return False
        self.give_up()
        return True


_patience = Patience()  # of this process
_hosts: dict[str, Host] = {}


def patience() -> Patience:
    """Return the patience of this process."""
    return _patience


def have_patience(wanted: Patience) -> None:
    """Set the patience of this process."""
    global _patience
    _patience = wanted


def host_of(path: object) -> Host | None:
    """Return the web server of a path; the servers of an object store are one, and never given up."""
    if not isinstance(path, str) or not path.startswith(("http://", "https://")):
        return None
    name = urlsplit(path).netloc.rpartition("@")[2]
    return _hosts.setdefault(name, Host(name))
