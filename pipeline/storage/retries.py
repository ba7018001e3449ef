"""Tries again requests that fail for a moment: timeouts, lost connections, throttling, errors of servers.

Waits grow exponentially and are random, so that many workers do not come back at the same moment. All tries together
end with the patience of the process (pipeline/storage/patience.py). A try that hangs is ended by the timeouts of the
client: those of S3 and of web servers are set here, the clients of other stores have their own.
"""

import errno
import random
import re
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import fsspec

from pipeline.storage.patience import host_of, patience

_FIRST_WAIT, _LONGEST_WAIT = 0.5, 10.0  # seconds

_CONNECT_SECONDS, _READ_SECONDS = 10, 20  # without a byte
# s3fs itself tries each request five times within seconds; botocore would multiply that.
_S3_CLIENT = {
    "connect_timeout": _CONNECT_SECONDS,
    "read_timeout": _READ_SECONDS,
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


_AWS = "AWS_ACCESS_KEY_ID with AWS_SECRET_ACCESS_KEY, AWS_PROFILE, ~/.aws/credentials, the role of the machine"
_CREDENTIALS = {  # class of a client library -> what it looks for
    "NoCredentialsError": _AWS,
    "PartialCredentialsError": _AWS,
    "DefaultCredentialsError": "GOOGLE_APPLICATION_CREDENTIALS, `gcloud auth application-default login`",
    "CredentialUnavailableError": "AZURE_STORAGE_CONNECTION_STRING, AZURE_STORAGE_ACCOUNT_NAME with ..._ACCOUNT_KEY",
}


class StorageError(OSError):
    """A storage that cannot be used, whatever its client library raised."""


class CredentialsError(StorageError):
    """A storage for which there are no credentials."""


def client_options(scheme: str) -> dict[str, Any]:
    """Return the options of a file system that keep its requests from hanging; what fsspec is configured with wins."""
    if scheme in ("http", "https"):
        return _web_options()
    if scheme not in ("s3", "s3a"):
        return {}
    configured = fsspec.config.conf.get("s3", {}).get("config_kwargs", {})
    return {"config_kwargs": {**_S3_CLIENT, **configured}}


def _web_options() -> dict[str, Any]:
    try:
        from fsspec.implementations import http
    except ImportError:  # fsspec says what to install
        return {}
    timeout = http.aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=_READ_SECONDS)
    return {"client_kwargs": {"timeout": timeout, **fsspec.config.conf.get("http", {}).get("client_kwargs", {})}}


_locks: weakref.WeakKeyDictionary[Any, threading.Lock] = weakref.WeakKeyDictionary()
_locks_lock = threading.Lock()


def _lock_of(filesystem: Any) -> threading.Lock:
    """Return the lock of a file system, which is the same for all that share it: fsspec keeps its instances."""
    with _locks_lock:
        return _locks.setdefault(filesystem, threading.Lock())


class Retrying:
    """A file system of fsspec whose calls are tried again. What a call returns, such as an open file, is as it was.

    Those of fsspec that are not asynchronous (FTP, archives) know no threads: they do one call at a time.
    """

    def __init__(self, filesystem: Any) -> None:
        self._filesystem = filesystem
        self._lock: AbstractContextManager[Any] = nullcontext()
        if not filesystem.async_impl:
            self._lock = _lock_of(filesystem)

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._filesystem, name)
        return partial(call, partial(self._ask, attribute)) if callable(attribute) else attribute

    def _ask(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        try:
            with self._lock:
                return function(*arguments, **options)
        except PermissionError as error:
            if error.filename is not None or not arguments or not isinstance(arguments[0], str):
                raise
            path = self._filesystem.unstrip_protocol(arguments[0])  # s3fs says "Forbidden" and no more
            why = f"access is denied ({error}): the credentials are wrong, or may not do this"
            raise PermissionError(errno.EACCES, why, path) from error


def call(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call a function until it succeeds, raises an error that lasts, or the patience of the process is over.

    Raises:
        StorageError: a transient error went on for too long, or an error of a client library is not an OSError.
        CredentialsError: a client library found none.
    """
    host = host_of(arguments[0] if arguments else None)
    if host is not None and not host.may_be_asked():
        raise StorageError(f"{host.name} did not answer before, and is asked once a minute only")
    start = time.monotonic()
    for num_tries, wait in enumerate(_waits(), 1):
        try:
            result = function(*arguments, **options)
        except Exception as error:
            failure = error
        else:
            if host is not None:
                host.answered()
            return result
        if not is_transient(failure):
            break
        since = start if host is None else host.failing_since()
        is_late = time.monotonic() - since + wait > patience().seconds
        if is_late or not patience().allows(num_tries):
            if is_late and host is not None:
                host.give_up()
            raise StorageError(
                f"storage failed {num_tries} times in {time.monotonic() - start:.0f} s, the last time with "
                f"{_describe(failure)}"
            ) from failure
        time.sleep(wait)
    if host is not None:
        host.answered()
    if (lasting := _lasting(failure)) is failure:
        raise failure
    raise lasting from failure


def _lasting(failure: Exception) -> Exception:
    """Return an error that does not pass as one of ours, where it is of a client library."""
    if variables := _CREDENTIALS.get(type(failure).__name__):
        return CredentialsError(f"there are no credentials for this storage: looked for {variables}")
    if not isinstance(failure, OSError) and _CLIENTS.match(type(failure).__module__):
        return StorageError(f"storage cannot be used: {_describe(failure)}")
    return failure


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
