"""The jobs as functions, with their one worker in this process."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import pipeline
from jobs import compress_dataset, decompress_dataset
from jobs.options import ClusterOptions, InputOptions, config_of
from pipeline.cluster.run import run_to_end
from pipeline.console.exits import ExitCode, UsageError, WorkError
from pipeline.ledger.output import Output
from tests.compressed import compress
from tests.datasets import pixels
from tests.inline import InlineCluster


@pytest.fixture(autouse=True)
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    for job in (compress_dataset, decompress_dataset):
        monkeypatch.setattr(job, "Cluster", InlineCluster)
        monkeypatch.setattr(job, "run_to_end", partial(run_to_end, run=InlineCluster.run))


def test_a_dataset_goes_there_and_back(tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    for number in range(3):
        Image.fromarray(pixels(20, 30, seed=number)).save(tmp_path / "in" / f"{number}.png")
    (tmp_path / "in" / "bad.png").write_bytes(b"")
    options: dict[str, Any] = {"bundle": str(tiny_bundle), "cpus_per_worker": 2}
    result = pipeline.compress_dataset(
        str(tmp_path / "in"), str(tmp_path / "out"), quality=4, max_pixels=600, **options
    )
    assert (result.total.num_images, result.total.quarantined, result.num_left) == (4, {"empty": 1}, 0)
    assert result.exit_code is ExitCode.DONE_WITH_QUARANTINED and result.total.total_bpp is not None
    restored = pipeline.decompress_dataset(str(tmp_path / "out"), str(tmp_path / "back"), format="webp", **options)
    assert restored.total.num_images == 3
    assert {path.name for path in (tmp_path / "back" / "images").iterdir()} == {"0.webp", "1.webp", "2.webp"}
    assert capsys.readouterr().out == "", "what is printed is for people at a terminal"
    assert "compress_dataset" in dir(pipeline)


def test_a_dataset_that_lacks_a_file_is_an_error_when_the_rest_is_restored(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(3):
        Image.fromarray(pixels(20, 30, seed=number)).save(tmp_path / "in" / f"{number}.png")
    compress(tmp_path / "in", tmp_path / "out", tiny_bundle, shard_size=1)
    (tmp_path / "out" / Output(str(tmp_path / "out")).markers()[0].files["bitstreams"].name).unlink()
    with pytest.raises(WorkError, match=r"1 shards were left out, all others are done: .*is missing"):
        pipeline.decompress_dataset(str(tmp_path / "out"), str(tmp_path / "back"), bundle=str(tiny_bundle))
    assert {path.name for path in (tmp_path / "back" / "images").iterdir()} == {"1.png", "2.png"}


def test_options_have_the_names_of_flags() -> None:
    config = config_of(compress_dataset.CompressDataset, input="a", output="b", num_workers=3, shard_size=8)
    assert config == compress_dataset.CompressDataset(
        InputOptions("a"), output="b", shard_size=8, cluster=ClusterOptions(num_workers=3)
    )
    with pytest.raises(TypeError, match=r"no option num_worker: expected some of .*input.*num_workers.*quality"):
        config_of(compress_dataset.CompressDataset, input="a", output="b", num_worker=3)
    with pytest.raises(ValueError, match="--num-workers is 0, expected 1 or more"):
        config_of(compress_dataset.CompressDataset, input="a", output="b", num_workers=0)


def test_what_cannot_begin_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not there"):
        pipeline.compress_dataset(str(tmp_path / "nowhere"), str(tmp_path / "out"))
    with pytest.raises(TypeError, match="dry_run"):
        pipeline.compress_dataset(str(tmp_path), str(tmp_path / "out"), dry_run=True)
