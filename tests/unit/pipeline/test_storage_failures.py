"""Small jobs, over and over, with another call to storage failing each time, until none is left to fail.

After each failure all that is committed is whole, and the rerun ends as the undisturbed run does.
"""

import shutil
from collections.abc import Callable, Generator, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from bls.codec import Codec
from jobs import decompress_dataset
from jobs.decompress_dataset import DecompressDataset
from pipeline.cluster.run import Work, run_to_end
from pipeline.compress.worker import CompressionConfig, ShardCompressor
from pipeline.ledger.append import append_plan
from pipeline.ledger.manifest import Manifest
from pipeline.ledger.markers import Marker
from pipeline.ledger.output import Output
from pipeline.ledger.plan import freeze_plan, planned_shards
from pipeline.sources.opening import open_source
from pipeline.sources.reference import Source
from pipeline.storage.folder import list_names
from pipeline.work.codec import CodecSpec
from tests.compressed import compress
from tests.datasets import commit_instead, pixels
from tests.failing import Trial, rows
from tests.faulty_disk import Fault
from tests.inline import InlineCluster

STORED = ("metrics", "bitstreams")
FAULTS = [Fault.POWER_CUT, *(pytest.param(each, marks=pytest.mark.slow) for each in Fault if each != Fault.POWER_CUT)]
"""A power cut loses most: the other faults are left to the slow tests."""
REFUSED = pytest.param(False, marks=pytest.mark.slow, id="refused")
ANSWER_LOST = pytest.param(True, id="answer lost")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for seed in range(2):
        Image.fromarray(pixels(16, 16, seed=seed)).save(folder / f"{seed}.png")
    (folder / "broken.png").write_bytes(b"broken")
    return folder


@pytest.fixture
def no_loading(monkeypatch: pytest.MonkeyPatch, tiny_bundle: Path) -> None:
    """Give workers a codec that is there."""
    codec = Codec.load(tiny_bundle)
    monkeypatch.setattr(CodecSpec, "load_and_try", lambda _: codec)


def telling(told: list[Marker]) -> Callable[..., Generator[Marker, None, None]]:
    """Return what runs shards and takes note of the markers."""

    def run(*arguments: Any) -> Generator[Marker, None, None]:
        for marker in InlineCluster.run(*arguments):
            told.append(marker)
            yield marker

    return run


def check_names(output: Output, others: Iterable[str]) -> None:
    markers = output.markers()
    named = {file.name for marker in markers for file in marker.files.values()}
    commits = {f"commits/{marker.name}" for marker in markers}
    assert set(list_names(output.folder)) == {"manifest.json", *others, *commits, *named}, "nothing is left over"


Plans = Callable[..., Manifest]


@pytest.fixture
def compress_with(images: Path, tiny_bundle: Path, no_loading: None) -> Callable[..., None]:
    """Return a job that compresses a folder in shards of two images, planned by a function."""
    spec = CodecSpec.of(str(tiny_bundle), 4, coder="static", max_pixels=2**22)

    def job(plan: Plans, folder: Path, output: Output, told: list[Marker]) -> None:
        source, begun = open_source(str(folder)), Manifest("compress", {"quality": 4})
        manifest = plan(output, source, begun=begun, shard_size=2, num_workers=lambda: 1)
        worker = ShardCompressor(CompressionConfig(str(folder), str(output), spec, ms_ssim_share=0))
        work = Work(
            verb="compressed",
            output=output,
            num_images=manifest.num_images,
            shards=lambda done: planned_shards(output, manifest, skip=done),
            make_worker=lambda: worker,
        )
        run_to_end(work, InlineCluster(), max_failures=None, run=telling(told))

    return job


def contents_of(output: Output, *, num_plan_files: int) -> list[list[dict[str, Any]]]:
    """Return the rows of an output in which nothing is left over."""
    plans = list(list_names(output.folder.child("plan")))
    assert len(plans) == num_plan_files
    check_names(output, [f"plan/{plan}" for plan in plans])
    return [rows(output, kind) for kind in STORED]


@pytest.fixture
def compression(images: Path, compress_with: Callable[..., None]) -> Trial:
    """Return a job of three images in two shards, one of them broken."""
    job = partial(compress_with, freeze_plan, images)
    return Trial(job, lambda output: None, partial(contents_of, num_plan_files=1))


@pytest.fixture
def addition(images: Path, tmp_path: Path, compress_with: Callable[..., None]) -> Trial:
    """Return a job that appends two images to these three."""
    more = shutil.copytree(images, tmp_path / "more")
    for seed in (5, 6):
        Image.fromarray(pixels(16, 16, seed=seed)).save(more / f"{seed}.png")

    def append(output: Output, source: Source, **options: Any) -> Manifest:
        return append_plan(output, source, **options)[0]

    return Trial(
        partial(compress_with, append, more),
        lambda output: None,
        partial(contents_of, num_plan_files=3),
        prepare=lambda output: compress_with(freeze_plan, images, output, []),
    )


@pytest.fixture
def restore(
    images: Path, tiny_bundle: Path, tmp_path: Path, no_loading: None, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Trial]:
    """Return what makes a job that restores four images in two shards, one of them damaged, into a container."""
    many, compressed = tmp_path / "many", Output(str(tmp_path / "compressed"))
    many.mkdir()
    for seed in range(4):
        Image.fromarray(pixels(16, 16, seed=seed)).save(many / f"{seed}.png")
    compress(many, tmp_path / "compressed", tiny_bundle, shard_size=2)
    marker = compressed.markers()[1]
    table = pq.read_table(tmp_path / "compressed" / marker.files["bitstreams"].name)
    stored = table.to_pylist()
    stored[0]["bitstream"] = stored[0]["bitstream"][:-1]
    commit_instead(compressed, marker, "bitstreams", table.from_pylist(stored, schema=table.schema))
    spec = CodecSpec.of(str(tiny_bundle), 4, coder="adaptive", max_pixels=2**22)
    monkeypatch.setattr(decompress_dataset, "codec_of", lambda *_, **__: spec)
    monkeypatch.setattr(decompress_dataset, "Cluster", InlineCluster)

    def restored(output: Output) -> dict[str, bytes]:
        folder = output.folder.child("images")
        return {name: folder.read(name) for name in list_names(folder)}

    def make(container: Any) -> Trial:
        def job(output: Output, told: list[Marker]) -> None:
            config = DecompressDataset(str(compressed), str(output), bundle=str(tiny_bundle), container=container)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(decompress_dataset, "run_to_end", partial(run_to_end, run=telling(told)))
                decompress_dataset.decompress(config)

        def check_there(output: Output) -> None:
            for marker in output.markers():
                for row in rows(output, "metrics"):
                    if row["status"] == "ok" and row["shard"] == marker.shard:
                        name = row["path"] if container == "files" else f"{marker.shard:06d}.tar"
                        assert output.folder.child("images").read(name) == whole[name]

        def contents(output: Output) -> list[dict[str, Any]]:
            assert restored(output) == whole
            records = [name for name in list_names(output.folder) if name.startswith("written/")]
            check_names(output, [*records, *(f"images/{name}" for name in whole)])
            return rows(output, "metrics")

        first = Output(str(tmp_path / f"first-{container}"))
        job(first, [])
        whole = restored(first)
        assert whole
        return Trial(job, check_there, contents)

    return make


@pytest.mark.parametrize("fault", Fault)
def test_every_call_to_the_disk_fails_once(compression: Trial, tmp_path: Path, fault: Fault) -> None:
    assert compression.on_a_disk(tmp_path, fault) > 50, "the calls are counted"


@pytest.mark.parametrize("is_done", [False, True], ids=["refused", "answer lost"])
def test_every_request_to_an_object_store_fails_once(compression: Trial, is_done: bool) -> None:
    assert compression.in_a_store(f"compress-{is_done}", is_done=is_done) > 30, "the requests are counted"


@pytest.mark.parametrize("fault", FAULTS)
def test_every_call_to_the_disk_of_an_append_fails_once(addition: Trial, tmp_path: Path, fault: Fault) -> None:
    assert addition.on_a_disk(tmp_path, fault) > 50, "the calls are counted"


@pytest.mark.parametrize("is_done", [REFUSED, ANSWER_LOST])
def test_every_request_to_an_object_store_of_an_append_fails_once(addition: Trial, is_done: bool) -> None:
    assert addition.in_a_store(f"append-{is_done}", is_done=is_done) > 30, "the requests are counted"


@pytest.mark.parametrize("fault", FAULTS)
def test_every_call_to_the_disk_of_a_restore_fails_once(
    restore: Callable[[str], Trial], tmp_path: Path, fault: Fault
) -> None:
    assert restore("files").on_a_disk(tmp_path, fault) > 50, "the calls are counted"


def test_every_call_to_the_disk_of_a_restore_to_tars_fails_once(
    restore: Callable[[str], Trial], tmp_path: Path
) -> None:
    assert restore("webdataset").on_a_disk(tmp_path, Fault.POWER_CUT) > 50, "the calls are counted"


@pytest.mark.parametrize("is_done", [REFUSED, ANSWER_LOST])
def test_every_request_to_an_object_store_of_a_restore_fails_once(
    restore: Callable[[str], Trial], is_done: bool
) -> None:
    assert restore("files").in_a_store(f"restore-{is_done}", is_done=is_done) > 30, "the requests are counted"
