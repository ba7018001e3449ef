"""A small job, over and over, with another call to storage failing each time, until none is left to fail.

After each failure all that is committed is whole, and the rerun ends as the undisturbed run does.
"""

import errno
import hashlib
import itertools
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from bls.codec import Codec
from pipeline.cluster.run import Work, run_to_end
from pipeline.compress.worker import CompressionConfig, ShardCompressor
from pipeline.console.exits import WorkError
from pipeline.ledger.markers import Marker
from pipeline.ledger.output import Manifest, Output, OutputError
from pipeline.ledger.plan import freeze_plan, planned_shards
from pipeline.sources.opening import open_source
from pipeline.storage.folder import list_names
from pipeline.storage.retries import Retrying
from pipeline.work.codec import CodecSpec
from tests.datasets import pixels
from tests.faulty_disk import DeathError, Fault, FaultyDisk
from tests.inline import InlineCluster
from tests.jobs import comparable

Job = Callable[[Output, list[Marker]], None]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> Job:
    """Return a job of three images in two shards, one of them broken, that loads no codec again."""
    images = tmp_path_factory.mktemp("images")
    for seed in range(2):
        Image.fromarray(pixels(16, 16, seed=seed)).save(images / f"{seed}.png")
    (images / "broken.png").write_bytes(b"broken")
    codec, spec = Codec.load(tiny_bundle), CodecSpec.of(str(tiny_bundle), 4, coder="static", max_pixels=2**22)

    def compress(output: Output, told: list[Marker]) -> None:
        source = open_source(str(images))
        manifest = freeze_plan(
            output, source, begun=Manifest("compress", {"quality": 4}), shard_size=2, num_workers=lambda: 1
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(CodecSpec, "load_and_try", lambda _: codec)
            worker = ShardCompressor(CompressionConfig(str(images), str(output), spec, ms_ssim_share=0))
        work = Work(
            verb="compressed",
            output=output,
            num_images=manifest.num_images,
            shards=lambda done: planned_shards(output, manifest, skip=done),
            make_worker=lambda: worker,
        )

        def run(*arguments: Any) -> Generator[Marker, None, None]:
            for marker in InlineCluster.run(*arguments):
                told.append(marker)
                yield marker

        run_to_end(work, InlineCluster(), max_failures=None, run=run)

    return compress


def rows(output: Output, kind: str) -> list[dict[str, Any]]:
    contents = [pa.BufferReader(output.folder.read(each.files[kind].name)) for each in output.markers()]
    return comparable(pa.concat_tables(map(pq.read_table, contents)).to_pylist())


def check_what_is_there(output: Output, told: list[Marker]) -> None:
    """Check that all that is committed is whole, and that nothing is lost that the job said it had committed."""
    markers = output.markers()
    for file in (file for marker in markers for file in marker.files.values()):
        data = output.folder.read(file.name)
        assert (len(data), hashlib.sha256(data).hexdigest()) == (file.num_bytes, file.sha256)
    assert [marker for marker in told if marker not in markers] == []


def check_is_as_undisturbed(output: Output, undisturbed: Output) -> None:
    for kind in ("metrics", "bitstreams"):
        assert rows(output, kind) == rows(undisturbed, kind)
    (plan,) = list_names(output.folder.child("plan"))
    markers = output.markers()
    named = {file.name for marker in markers for file in marker.files.values()}
    commits = {f"commits/{marker.name}" for marker in markers}
    assert set(list_names(output.folder)) == {"manifest.json", f"plan/{plan}", *commits, *named}, "nothing is left over"


@pytest.mark.parametrize("fault", Fault)
def test_every_call_to_the_disk_fails_once(job: Job, tmp_path: Path, fault: Fault) -> None:
    undisturbed = Output(f"{tmp_path}/undisturbed")
    job(undisturbed, [])
    for number in itertools.count(1):
        folder, told = tmp_path / str(number), list[Marker]()
        folder.mkdir()
        disk, output = FaultyDisk(folder, number, fault), Output(str(folder))
        with pytest.MonkeyPatch.context() as patch:
            disk.install(patch)
            try:
                job(output, told)
            except (OSError, OutputError, WorkError, DeathError):
                assert disk.has_failed
        check_what_is_there(output, told)
        job(output, [])
        check_is_as_undisturbed(output, undisturbed)
        if not disk.has_failed:
            break
    assert number > 50, "the calls are counted"


@pytest.mark.parametrize("is_done", [False, True], ids=["refused", "answer lost"])
def test_every_request_to_an_object_store_fails_once(job: Job, is_done: bool) -> None:
    undisturbed = Output(f"memory://undisturbed-{is_done}")
    job(undisturbed, [])
    for number in itertools.count(1):
        store, told, output = FaultyStore(number, is_done), list[Marker](), Output(f"memory://{is_done}-{number}")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Retrying, "_ask", store.request)
            try:
                job(output, told)
            except (OSError, OutputError, WorkError):
                assert store.has_failed
        check_what_is_there(output, told)
        job(output, [])
        check_is_as_undisturbed(output, undisturbed)
        if not store.has_failed:
            break
    assert number > 30, "the requests are counted"


class FaultyStore:
    """Counts requests; one of them fails, before it was done or after."""

    def __init__(self, fails_at: int, is_done: bool) -> None:
        self._fails_at, self._is_done = fails_at, is_done
        self._lock = threading.Lock()
        self._num_requests = 0

    @property
    def has_failed(self) -> bool:
        return self._num_requests >= self._fails_at

    def request(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        with self._lock:
            self._num_requests += 1
            if self._num_requests != self._fails_at:
                return function(*arguments, **options)
            if self._is_done:
                function(*arguments, **options)
            raise OSError(errno.EIO, "this request was to fail")
