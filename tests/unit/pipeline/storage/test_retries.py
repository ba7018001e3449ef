"""Storage that fails for a moment or for ever: a file system of fsspec that raises what its test tells it to."""

import errno
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import aiohttp
import botocore.exceptions
import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from pipeline.console.exits import UsageError, usage
from pipeline.images import ImageError
from pipeline.ledger.manifest import Manifest, Plan
from pipeline.ledger.output import Output
from pipeline.ledger.summary import Summary
from pipeline.sources.opening import open_source
from pipeline.sources.reading import read_encoded
from pipeline.storage import retries
from pipeline.storage.folder import list_names
from pipeline.storage.opening import open_folder
from pipeline.storage.patience import SECONDS_BETWEEN_PROBES, Patience
from pipeline.storage.retries import StorageError, call, client_options, is_transient


def client_error(code: str, status: int) -> Exception:
    response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    error: Exception = botocore.exceptions.ClientError(response, "GetObject")
    return error


def caused_by(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


TRANSIENT = [
    TimeoutError(),
    ConnectionResetError(),
    OSError(errno.EBUSY, "Please reduce your request rate"),  # s3fs, of SlowDown
    OSError(errno.EREMOTEIO, "We encountered an internal error"),  # s3fs, of InternalError
    caused_by(OSError(errno.EIO, "?"), client_error("XYZ", 502)),
    client_error("ConditionalRequestConflict", 409),
    botocore.exceptions.ReadTimeoutError(endpoint_url="http://x"),
    botocore.exceptions.EndpointConnectionError(endpoint_url="http://x"),
    aiohttp.ClientPayloadError(),
    aiohttp.ServerDisconnectedError(),
]
LASTING = [
    FileNotFoundError(),
    PermissionError(),
    FileExistsError(),
    OSError(errno.ENOSPC, "disk full"),
    caused_by(OSError(errno.EIO, "?"), client_error("XYZ", 400)),
    caused_by(PermissionError("Forbidden"), client_error("403", 403)),
    client_error("NoSuchKey", 404),
    botocore.exceptions.NoCredentialsError(),
    ValueError(),
]


class Faults:
    """Raises errors in turn, before or after a call does its work, and counts the calls."""

    def __init__(self) -> None:
        self.before: list[Exception] = []
        self.after: list[Exception] = []
        self.num_calls = 0

    def around(self, function: Any, *arguments: Any, **options: Any) -> Any:
        self.num_calls += 1
        if self.before:
            raise self.before.pop(0)
        result = function(*arguments, **options)
        if self.after:
            raise self.after.pop(0)
        return result


class FaultyFileSystem(MemoryFileSystem):  # type: ignore[misc]
    """Memory behind faults."""

    protocol = "faulty"
    store: ClassVar[dict[str, Any]] = {}
    faults = Faults()

    def ls(self, path: str, detail: bool = True, **options: Any) -> Any:
        return self.faults.around(super().ls, path, detail=detail, **options)

    def info(self, path: str, **options: Any) -> Any:
        return self.faults.around(super().info, path, **options)

    def cat_file(self, path: str, **options: Any) -> Any:
        return self.faults.around(super().cat_file, path, **options)

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> Any:
        return self.faults.around(super().pipe_file, path, value, mode=mode, **options)


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Iterator[Faults]:
    """Return the faults of a new `faulty://` storage, with a clock on which waiting takes no time."""
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: clock.__setitem__(0, clock[0] + seconds))
    monkeypatch.setattr(FaultyFileSystem, "store", {})
    monkeypatch.setattr(FaultyFileSystem, "faults", Faults())
    fsspec.register_implementation("faulty", FaultyFileSystem, clobber=True)
    yield FaultyFileSystem.faults


@pytest.mark.parametrize("error", TRANSIENT, ids=repr)
def test_transient_errors_are_told(error: Exception) -> None:
    assert is_transient(error)


@pytest.mark.parametrize("error", LASTING, ids=repr)
def test_lasting_errors_are_told(error: Exception) -> None:
    assert not is_transient(error)


@pytest.mark.parametrize("error", TRANSIENT, ids=repr)
def test_what_fails_for_a_moment_is_tried_again(faults: Faults, error: Exception) -> None:
    folder = open_folder("faulty://bucket/folder")
    faults.before = [error] * 3
    folder.write("a", b"content")
    faults.before = [error] * 3
    assert folder.read("a") == b"content"
    faults.before = [error] * 3
    assert list(list_names(folder)) == ["a"]


@pytest.mark.parametrize("error", [FileNotFoundError("a"), PermissionError("a")])
def test_what_will_not_change_is_tried_once(faults: Faults, error: Exception) -> None:
    folder = open_folder("faulty://bucket/folder")
    faults.before = [error]
    with pytest.raises(type(error)):
        folder.read("a")
    assert faults.num_calls == 1


def test_an_outage_is_no_empty_folder(faults: Faults) -> None:
    folder = open_folder("faulty://bucket/folder")
    folder.write("a", b"")
    faults.before = [OSError(errno.EBUSY, "SlowDown")] * 1000
    for look in (folder.exists, lambda: list(list_names(folder))):
        with pytest.raises(StorageError, match=r"failed \d+ times in \d+ s, .*SlowDown"):
            look()


def test_tries_end_after_a_bounded_time(faults: Faults) -> None:
    def fail() -> None:
        faults.num_calls += 1
        raise TimeoutError("stalled")

    start = time.monotonic()
    with pytest.raises(StorageError, match="TimeoutError: stalled"):
        call(fail)
    assert Patience.seconds / 2 < time.monotonic() - start <= Patience.seconds
    assert 10 < faults.num_calls < 200


def test_patience_may_be_short(faults: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        faults.num_calls += 1
        raise TimeoutError("stalled")

    for wanted, expected in ((Patience(retries=2), 3), (Patience(retries=0), 1), (Patience(seconds=0), 1)):
        monkeypatch.setattr("pipeline.storage.patience._patience", wanted)
        faults.num_calls = 0
        with pytest.raises(StorageError, match="failed"):
            call(fail)
        assert faults.num_calls == expected


def test_a_web_server_that_is_gone_is_waited_for_once(faults: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not once for each of the images that it has; others are not held up, and it may come back."""
    monkeypatch.setattr("pipeline.storage.patience._hosts", {})
    gone = {"gone.example"}

    def ask(url: str) -> str:
        faults.num_calls += 1
        if url.split("/")[2] in gone:
            raise TimeoutError("stalled")
        return url

    start = time.monotonic()
    for number in range(20):
        with pytest.raises(StorageError, match=r"storage failed|gone.example did not answer"):
            call(ask, f"https://gone.example/{number}.jpg")
        assert call(ask, f"https://there.example/{number}.jpg")
    assert time.monotonic() - start <= Patience.seconds
    assert faults.num_calls < 200 + 20
    gone.clear()
    time.sleep(SECONDS_BETWEEN_PROBES)
    assert call(ask, "https://gone.example/20.jpg") and call(ask, "https://gone.example/21.jpg")


def test_a_web_server_is_not_given_up_for_one_failure(faults: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.storage.patience._hosts", {})
    monkeypatch.setattr("pipeline.storage.patience._patience", Patience(retries=0))
    with pytest.raises(StorageError, match="failed 1 times"):
        call(_raise, "https://there.example/1.jpg")
    assert call(str.upper, "https://there.example/2.jpg")


def _raise(_: str) -> None:
    raise TimeoutError


def test_a_web_server_that_says_no_is_there(faults: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
    """What failed for a moment long ago is not held against it."""
    monkeypatch.setattr("pipeline.storage.patience._hosts", {})
    url = "https://there.example/x.jpg"

    def ask(_: str) -> str:
        faults.num_calls += 1
        if faults.before:
            raise faults.before.pop(0)
        return "image"

    faults.before = [TimeoutError(), FileNotFoundError(url)]
    with pytest.raises(FileNotFoundError):
        call(ask, url)
    time.sleep(10 * Patience.seconds)
    faults.before = [TimeoutError()]
    assert call(ask, url) == "image"


def test_an_object_store_is_never_given_up(faults: Faults) -> None:
    """What it holds is one data set, and an outage passes."""
    folder = open_folder("faulty://bucket/folder")
    folder.write("a", b"content")
    faults.before = [TimeoutError()] * 1000
    with pytest.raises(StorageError):
        folder.read("a")
    faults.before = []
    assert folder.read("a") == b"content"


def test_errors_of_client_libraries_are_errors_of_storage(faults: Faults) -> None:
    folder = open_folder("faulty://bucket/folder")
    faults.before = [botocore.exceptions.BotoCoreError()]
    with pytest.raises(OSError, match="storage cannot be used: BotoCoreError"):
        folder.read("a")


def test_missing_credentials_are_named_by_their_variables(faults: Faults) -> None:
    folder = open_folder("faulty://bucket/folder")
    faults.before = [botocore.exceptions.NoCredentialsError()]
    with pytest.raises(UsageError, match=r"AWS_ACCESS_KEY_ID .*\. Nothing was begun\."), usage():
        folder.read("a")


def test_what_is_forbidden_has_a_path_and_a_cause(faults: Faults) -> None:
    """s3fs says "Forbidden" and nothing more."""
    folder = open_folder("faulty://bucket/folder")
    faults.before = [PermissionError("Forbidden")]
    with pytest.raises(UsageError, match=r"denied \(Forbidden\).*faulty://.*/folder/a'\. Nothing was begun"), usage():
        folder.read("a")


def test_a_marker_whose_answer_was_lost_is_this_run_s(faults: Faults) -> None:
    output = Output("faulty://bucket/out")
    output.begin(Manifest(job="compress", plans=(Plan("1" * 32),)))

    def create(data: bytes) -> bool:
        faults.after = [ConnectionResetError()]
        return output.folder.create("marker", data)

    create(b"first")
    faults.after = []
    assert output.folder.create("marker", b"second") is False
    assert output.folder.read("marker") == b"first"
    marker = output.commit(0, {"metrics": b"rows"}, Summary(1))
    assert output.marker(0) == marker and output.folder.read(marker.files["metrics"].name) == b"rows"


def test_a_store_without_conditional_puts_gets_the_file(faults: Faults) -> None:
    folder = open_folder("faulty://bucket/folder")
    faults.before = [FileNotFoundError("a"), OSError(errno.ENOSYS, "NotImplemented"), FileNotFoundError("a")]
    assert folder.create("a", b"first") is True
    assert folder.create("a", b"second") is False
    assert folder.read("a") == b"first"


def test_an_input_that_cannot_be_read_is_an_unreadable_image(faults: Faults) -> None:
    open_folder("faulty://bucket/in").write("a.jpg", b"image")
    source = open_source("faulty://bucket/in")
    (reference,) = source.references()
    faults.before = [TimeoutError("stalled")]
    assert read_encoded(source, reference) == b"image"
    faults.before = [TimeoutError("stalled")] * 1000
    with pytest.raises(ImageError, match="cannot be read: storage failed") as caught:
        read_encoded(source, reference)
    assert caught.value.status == "unreadable"


def test_an_output_that_cannot_be_written_is_an_error_of_the_output(faults: Faults) -> None:
    output = Output("faulty://bucket/out")
    faults.before = [TimeoutError("stalled")] * 1000
    with pytest.raises(OSError, match="storage failed"):
        output.commit(0, {"metrics": b"rows"}, Summary(1))
    faults.before = []
    assert output.committed() == set()


def test_requests_to_s3_end_and_the_user_s_settings_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fsspec.config, "conf", {"s3": {"config_kwargs": {"read_timeout": 90}}})
    options = client_options("s3")["config_kwargs"]
    assert options["read_timeout"] == 90 and options["connect_timeout"] > 0
    assert client_options("memory") == {}
    monkeypatch.setattr(fsspec.config, "conf", {"http": {"client_kwargs": {"trust_env": True}}})
    options = client_options("https")["client_kwargs"]
    assert options["trust_env"] is True and options["timeout"].sock_connect > 0 and options["timeout"].total is None


@pytest.mark.parametrize("is_async", [False, True])
def test_file_systems_that_know_no_threads_do_one_call_at_a_time(is_async: bool) -> None:
    """Several folders share such a file system, and its lock."""

    class Slow(MemoryFileSystem):  # type: ignore[misc]
        async_impl = is_async
        num_inside, largest = 0, 0

        def cat_file(self, path: str, **_: Any) -> bytes:
            self.num_inside += 1
            self.largest = max(self.largest, self.num_inside)
            time.sleep(0.02)
            self.num_inside -= 1
            return path.encode()

    filesystem = Slow(skip_instance_cache=True)
    before = dict(vars(filesystem))
    folders = [retries.Retrying(filesystem) for _ in range(2)]
    with ThreadPoolExecutor(8) as executor:
        paths = [f"/{number}" for number in range(8)]
        read = list(executor.map(lambda path: folders[int(path[1:]) % 2].cat_file(path), paths))
    assert read == [path.encode() for path in paths]
    assert (filesystem.largest == 1) is not is_async
    assert vars(filesystem).keys() - before.keys() <= {"num_inside", "largest"}  # it is the user's, too
