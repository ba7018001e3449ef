"""Tries again requests that fail for a moment: timeouts, lost connections, throttling, errors of servers.

Waits grow exponentially and are random, so that many workers do not come back at the same moment. All tries together
end after SECONDS_TO_RETRY, and a try that hangs is ended by the timeouts of the client: those of S3 are set here, the
clients of other stores have their own.
"""

import errno
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import fsspec

SECONDS_TO_RETRY = 120.0  # counted from the first try; no try begins later
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 10.0  # seconds

# s3fs itself tries each request five times within seconds; botocore would multiply that.
_S3_CLIENT = {
    "connect_timeout": 10,
    "read_timeout": 20,
    "retries": {"total_max_attempts": 1},
    "max_pool_connections": 32,  # as threads may make requests at a time
}

# Conflict is what S3 answers while two conditional puts of one name run.
_TRANSIENT_STATUSES = frozenset((408, 409, 425, 429, 500, 502, 503, 504))
_TRANSIENT_ERRNOS = frozenset(
    (errno.EAGAIN, errno.EBUSY, errno.EREMOTEIO, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN)
)
# Classes of client libraries, by name: none of them need be installed.
_TRANSIENT_CLASSES = frozenset(
    (
        *("HTTPClientError", "ResponseParserError"),  # botocore
        *("ClientConnectionError", "ClientPayloadError"),  # aiohttp
        *("ServiceRequestError", "ServiceResponseError"),  # azure
        *("ConnectionError", "IncompleteRead", "ProtocolError"),  # requests, http.client, urllib3
    )
)
_STATUS_NAMES = ("status", "status_code", "code")  # attributes of the errors of aiohttp, azure, gcsfs
_CLIENTS = re.compile(r"(aiobotocore|aiohttp|azure|botocore|gcsfs|google|requests|urllib3)\b")


class StorageError(OSError):
    """A storage that cannot be used, whatever its client library raised."""


def client_options(scheme: str) -> dict[str, Any]:
    """Return the options of a file system that keep its requests from hanging; what fsspec is configured with wins."""
    if scheme not in ("s3", "s3a"):
        return {}
    configured = fsspec.config.conf.get("s3", {}).get("config_kwargs", {})
    return {"config_kwargs": {**_S3_CLIENT, **configured}}


class Retrying:
    """A file system of fsspec whose calls are tried again. What a call returns, such as an open file, is as it was.

    Those of fsspec that are not asynchronous (FTP, archives) know no threads: they do one call at a time.
    """

    def __init__(self, filesystem: Any) -> None:
        self._filesystem = filesystem
        self._lock: AbstractContextManager[Any] = nullcontext()
        if not filesystem.async_impl:
            self._lock = vars(filesystem).setdefault("_bls_lock", threading.Lock())  # of all that share it

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._filesystem, name)
        return partial(call, self._one_at_a_time, attribute) if callable(attribute) else attribute

    def _one_at_a_time(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        with self._lock:
            return function(*arguments, **options)


def call(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call a function until it succeeds, raises an error that lasts, or the time is up.

    Raises:
        StorageError: a transient error went on for too long, or an error of a client library is not an OSError.
    """
    start = time.monotonic()
    for num_tries, wait in enumerate(_waits(), 1):
        try:
            return function(*arguments, **options)
        except Exception as error:
            failure = error
        if not is_transient(failure):
            break
        if time.monotonic() - start + wait > SECONDS_TO_RETRY:
            raise StorageError(
                f"storage failed {num_tries} times in {time.monotonic() - start:.0f} s, the last time with "
                f"{_describe(failure)}"
            ) from failure
        time.sleep(wait)
    if not isinstance(failure, OSError) and _CLIENTS.match(type(failure).__module__):
        raise StorageError(f"storage cannot be used: {_describe(failure)}") from failure
    raise failure


def is_transient(error: BaseException) -> bool:
    """Return whether the same request may succeed a moment later; an HTTP status decides if there is one."""
    if isinstance(error, (FileNotFoundError, FileExistsError, PermissionError)):
        return False
    chain = list(_chain(error))
    for status in filter(None, map(_http_status, chain)):
        return status in _TRANSIENT_STATUSES
    return any(map(_is_of_the_connection, chain))


def _waits() -> Iterator[float]:
    longest = _FIRST_WAIT
    while True:
        yield random.uniform(0, longest)
        longest = min(2 * longest, _LONGEST_WAIT)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what it was made from: file systems translate the errors of their clients."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _http_status(error: BaseException) -> int | None:
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore
        values = [response.get("ResponseMetadata", {}).get("HTTPStatusCode")]
    else:
        values = [getattr(each, name, None) for each in (error, response) for name in _STATUS_NAMES]
    return next((int(value) for value in map(str, values) if re.fullmatch(r"[1-5]\d\d", value)), None)


def _is_of_the_connection(error: BaseException) -> bool:
    if isinstance(error, (TimeoutError, ConnectionError)):
        return True
    if isinstance(error, OSError) and error.errno in _TRANSIENT_ERRNOS:
        return True
    return any(ancestor.__name__ in _TRANSIENT_CLASSES for ancestor in type(error).__mro__)


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
