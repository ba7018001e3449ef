"""Datasets in a real object store: compress, kill, go on, decompress, read; and the same when the store misbehaves."""

import io
import json
import os
import signal
import subprocess
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
import pytest
from PIL import Image

from bls.measures.images import mse_255, psnr_db
from pipeline.ledger.manifest import Manifest, Plan
from pipeline.ledger.output import Output
from pipeline.ledger.summary import Summary
from pipeline.storage.folder import list_names
from pipeline.storage.opening import open_folder
from tests.fault_proxy import FAILED, LOST_ANSWER, RESET, STALLED, THROTTLED, fault_proxy, some
from tests.images import random_fields
from tests.jobs import comparable, job, run, started_under, wait_until
from tests.storage_server import BUCKET, StorageServer

pytestmark = pytest.mark.integration

NUM_IMAGES = 16  # two of them broken


@pytest.fixture(scope="module")
def photographs(storage: StorageServer) -> str:
    """Return the URI of a folder of small images in several formats and folders."""
    filesystem = storage.filesystem()
    fields = (random_fields(NUM_IMAGES - 2, 48, seed=1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    for index, pixels in enumerate(fields):
        suffix = ("png", "jpeg", "webp")[index % 3]
        name = f"a b/ü+{index}.{suffix}" if index % 2 else f"{index}.{suffix}"
        data = io.BytesIO()
        Image.fromarray(pixels[: 32 + index]).save(data, suffix)
        filesystem.pipe_file(f"{BUCKET}/photographs/{name}", data.getvalue())
    filesystem.pipe_file(f"{BUCKET}/photographs/text.jpg", b"no image")
    filesystem.pipe_file(f"{BUCKET}/photographs/zero.png", b"")
    return f"s3://{BUCKET}/photographs"


@pytest.fixture(scope="module")
def compressed(photographs: str, tiny_bundle: Path) -> str:
    """Return the URI of what an undisturbed job makes of them."""
    output = f"s3://{BUCKET}/compressed"
    done = run("compress_dataset", *arguments(photographs, output, tiny_bundle))
    assert done.returncode == 3, done.stderr
    return output


@pytest.fixture(scope="module")
def bundle(storage: StorageServer, tiny_bundle: Path) -> str:
    """Return the URI of the bundle, copied there."""
    for path in tiny_bundle.iterdir():
        storage.filesystem().pipe_file(f"{BUCKET}/bundle/{path.name}", path.read_bytes())
    return f"s3://{BUCKET}/bundle"


def arguments(photographs: str, output: str, bundle: Path) -> Sequence[object]:
    return ("--input", photographs, "--output", output, "--bundle", bundle, "--shard-size", 2, "--num-workers", 1)


def rows(storage: StorageServer, output: str, table: str = "metrics") -> list[dict[str, Any]]:
    """Return the committed rows of an output, and see to it that there are no others."""
    filesystem = storage.filesystem()
    folder = output.removeprefix("s3://")
    markers = [json.loads(filesystem.cat_file(path)) for path in filesystem.ls(f"{folder}/commits", detail=False)]
    files = {f"{folder}/{marker['files'][table]['name']}" for marker in markers}
    assert files == set(filesystem.ls(f"{folder}/{table}", detail=False))
    tables = [pq.read_table(pa.BufferReader(filesystem.cat_file(path))) for path in files]
    return comparable(row for each in tables for row in each.to_pylist())


@pytest.mark.parametrize("page_size", [1, 3, 1000])
def test_a_folder_is_listed_page_by_page(
    storage: StorageServer, photographs: str, page_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.storage.listing.PAGE_SIZE", page_size)
    folder = photographs.removeprefix("s3://")
    expected = [path.removeprefix(f"{folder}/") for path in storage.filesystem().find(folder)]
    listed = list(list_names(open_folder(photographs)))
    assert sorted(listed) == sorted(expected) and len(listed) == NUM_IMAGES
    assert listed == [*sorted(name for name in listed if "/" not in name), *sorted(n for n in listed if "/" in n)]


def test_of_two_creators_one_wins(storage: StorageServer) -> None:
    folder = open_folder(f"s3://{BUCKET}/create")
    for number in range(5):
        start = threading.Barrier(4)

        def create(data: bytes, name: str = f"{number}", start: threading.Barrier = start) -> bool:
            start.wait()
            return folder.create(name, data)

        with ThreadPoolExecutor(4) as executor:
            creators = [b"a", b"b", b"c", b"d"]
            won = [data for data, is_first in zip(creators, executor.map(create, creators), strict=True) if is_first]
        assert won == [folder.read(str(number))]


def test_a_conditional_put_is_one(storage: StorageServer) -> None:
    """The store itself refuses: a creator that looked too early does not overwrite."""
    filesystem, path = storage.filesystem(), f"{BUCKET}/conditional"
    filesystem.pipe_file(path, b"first", mode="create")
    with pytest.raises(OSError, match="pre-condition"):
        filesystem.pipe_file(path, b"second", mode="create")
    assert filesystem.cat_file(path) == b"first"


def test_of_two_commits_one_stands(storage: StorageServer) -> None:
    uri = f"s3://{BUCKET}/commits-of-two"
    Output(uri).begin(Manifest(job="compress", plans=(Plan("1" * 32),)))
    with ThreadPoolExecutor(2) as executor:
        contents = [b"one", b"another"]
        markers = list(executor.map(lambda data: Output(uri).commit(0, {"metrics": data}, Summary(1)), contents))
    assert markers[0] == markers[1]
    files = storage.filesystem().ls(f"{BUCKET}/commits-of-two/metrics", detail=False)
    assert files == [f"{BUCKET}/commits-of-two/{markers[0].files['metrics'].name}"]


def test_every_image_has_one_row(storage: StorageServer, photographs: str, compressed: str) -> None:
    inputs = storage.filesystem().find(photographs)
    assert [row["source_uri"] for row in rows(storage, compressed)] == sorted(f"s3://{path}" for path in inputs)
    broken = {row["key"]: row["status"] for row in rows(storage, compressed) if row["status"] != "ok"}
    assert broken == {"text.jpg": "not_an_image", "zero.png": "empty"}


def test_arrow_and_duckdb_read_the_metrics_where_they_are(storage: StorageServer, compressed: str) -> None:
    filesystem, path = pyarrow.fs.FileSystem.from_uri(f"{compressed}/metrics")
    assert pq.read_table(path, filesystem=filesystem, columns=["key"]).num_rows == NUM_IMAGES
    with duckdb.connect() as connection:
        connection.register_filesystem(storage.filesystem())
        query = f"SELECT count(*), count(bpp) FROM '{compressed}/metrics/*.parquet'"
        assert connection.sql(query).fetchall() == [(NUM_IMAGES, NUM_IMAGES - 2)]


@pytest.mark.slow
def test_images_come_back_from_there(storage: StorageServer, photographs: str, compressed: str, bundle: str) -> None:
    output = f"s3://{BUCKET}/restored"
    done = run("decompress_dataset", "--input", compressed, "--output", output, "--bundle", bundle, "--log-json")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    told = [json.loads(line) for line in done.stderr.splitlines()]
    assert [record["event"] for record in told if record["event"] != "shard"][-2:] == ["progress", "done"]
    assert told[-1]["num_images"] == NUM_IMAGES - 2

    filesystem = storage.filesystem()
    paths = {row["key"]: row["path"] for row in rows(storage, output)}
    good = [row for row in rows(storage, compressed) if row["status"] == "ok"]
    assert sorted(paths) == [row["key"] for row in good]
    for row in good:
        uris = (f"{photographs}/{row['key']}", f"{output}/images/{paths[row['key']]}")
        x, x_hat = (np.asarray(Image.open(io.BytesIO(filesystem.cat_file(uri)))) for uri in uris)
        assert psnr_db(mse_255(x, x_hat)) == pytest.approx(row["psnr_db"], abs=0.01)


@pytest.mark.slow
def test_damage_is_found_and_mended_there(
    storage: StorageServer, photographs: str, compressed: str, tiny_bundle: Path
) -> None:
    filesystem, output = storage.filesystem(), f"s3://{BUCKET}/damaged"
    filesystem.copy(compressed, output, recursive=True)
    first, second, *_ = Output(output).markers()
    filesystem.rm_file(f"{output}/{first.files['bitstreams'].name}")
    filesystem.pipe_file(f"{output}/{second.files['metrics'].name}", b"PAR1")
    verify = ("verify_dataset", "--input", output, "--bundle", tiny_bundle)
    done = run(*verify, "--repair")
    assert done.returncode == 4, done.stderr
    assert run("compress_dataset", *arguments(photographs, output, tiny_bundle)).returncode == 3
    done = run(*verify, "--decode")
    assert done.returncode == 0, done.stderr
    assert rows(storage, output) == rows(storage, compressed)


def test_a_report_is_made_and_written_there(storage: StorageServer, compressed: str, bundle: str) -> None:
    output = f"s3://{BUCKET}/reports/report.html"
    done = run("report", "--input", compressed, "--output", output, "--bundle", bundle, "--compare", "1")
    assert done.returncode == 0, done.stderr
    page = storage.filesystem().cat_file(output).decode()
    assert f"{NUM_IMAGES - 2} images" in page and "could not be read again" not in page
    assert page.count("data:image/") > 9  # best, median and worst, beside their originals


@pytest.mark.slow
def test_a_job_that_was_killed_goes_on_there(
    storage: StorageServer, photographs: str, compressed: str, tiny_bundle: Path, tmp_path: Path
) -> None:
    for attempt in range(4):  # the job is short, and a busy machine may look too late
        output = f"s3://{BUCKET}/killed-{attempt}"
        command = job("compress_dataset", *arguments(photographs, output, tiny_bundle))
        num_before = commits_of_killed(command, output, mark=str(tmp_path))
        if num_before < NUM_IMAGES / 2:
            break
    else:
        pytest.fail("the job was always killed too late to show anything")

    done = run("compress_dataset", *arguments(photographs, output, tiny_bundle))
    assert done.returncode == 3, done.stderr
    assert f"{2 * num_before} of {NUM_IMAGES} images are compressed already" in done.stderr
    for table in ("metrics", "bitstreams"):
        assert rows(storage, output, table) == rows(storage, compressed, table)


def commits_of_killed(command: Sequence[str], output: str, *, mark: str) -> int:
    """Kill a job once it has committed something; return how much it had."""
    commits = open_folder(f"{output}/commits")

    def num_committed() -> int:
        return len(list(list_names(commits)))

    environment = {**os.environ, "BLS_TEST_MARK": mark}
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, env=environment
    ) as process:
        wait_until(lambda: num_committed() >= 1, "commits", seconds=300)
        os.killpg(process.pid, signal.SIGKILL)
    wait_until(lambda: not started_under(f"BLS_TEST_MARK={mark}"), "the processes of Ray to end")
    return num_committed()


def test_files_are_whole_behind_a_store_that_fails_at_times(
    storage: StorageServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fault_proxy(storage.endpoint, some(0.25, seed=1)) as proxy:
        # A file system of fsspec's is made once per set of options: this one finds the proxy.
        options = {"endpoint_url": proxy.endpoint, "config_kwargs": {"read_timeout": 1}}
        monkeypatch.setitem(fsspec.config.conf, "s3", options)
        folder = open_folder(f"s3://{BUCKET}/a b/ü+")
        for number in range(12):
            content = f"{number}".encode() * 20_000
            folder.write(f"{number}", content)
            assert folder.read(f"{number}") == content
            folder.create(f"once-{number}", content)
            assert folder.create(f"once-{number}", b"another") is False
            assert folder.read(f"once-{number}") == content
        assert len([name for names in folder.walk() for name in names]) == 24
    assert proxy.faults.total() > 10


@pytest.mark.slow
def test_a_store_that_fails_throttles_and_stalls_changes_nothing(
    storage: StorageServer, photographs: str, compressed: str, tiny_bundle: Path
) -> None:
    at_times, early = some(0.2, seed=3), (THROTTLED, FAILED, RESET, LOST_ANSWER, STALLED)

    def choose(number: int) -> str | None:
        if number % 8 == 0 and number < 8 * len(early):  # one of each, however few requests there are
            return early[number // 8]
        if 60 <= number < 80:  # an outage that is longer than the client's own tries
            return THROTTLED if number % 2 else FAILED
        return at_times(number)

    output = f"s3://{BUCKET}/disturbed"
    with fault_proxy(storage.endpoint, choose) as proxy:
        timeouts = json.dumps({"config_kwargs": {"read_timeout": 3}})
        environment = {"AWS_ENDPOINT_URL": proxy.endpoint, "FSSPEC_S3": timeouts}
        done = run("compress_dataset", *arguments(photographs, output, tiny_bundle), **environment)
    assert done.returncode == 3, done.stderr
    assert set(proxy.faults) == set(early), proxy.faults
    for table in ("metrics", "bitstreams"):
        assert rows(storage, output, table) == rows(storage, compressed, table)
