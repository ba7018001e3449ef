"""The compress job with `--append`, its one worker in this process: what is added, what readers see of it."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from jobs import compress_dataset, decompress_dataset, query_metrics, recode_dataset, verify_dataset
from pipeline import CompressedImages, bitstream_files
from pipeline.console.exits import ExitCode
from pipeline.ledger.output import Output
from pipeline.read.dataset import CompressedDataset
from pipeline.report.run import gather
from tests.campaigns.append import grow
from tests.datasets import pixels
from tests.inline import run_inline

Job = Callable[..., int]


@pytest.fixture(autouse=True)
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    run_inline(monkeypatch, compress_dataset, decompress_dataset, recode_dataset, verify_dataset)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    return folder


def add(images: Path, *numbers: int) -> None:
    for number in numbers:
        Image.fromarray(pixels(16, 20 + number, seed=number)).save(images / f"{number}.png")


@pytest.fixture
def job(tiny_bundle: Path, tmp_path: Path) -> Job:
    def run(module: Any, source: str, output: str | None, *arguments: object) -> int:
        folders = ["--input", str(tmp_path / source), *([] if output is None else ["--output", str(tmp_path / output)])]
        return int(module.main([*folders, "--bundle", str(tiny_bundle), *map(str, arguments)]))

    return run


@pytest.fixture
def compress(job: Job) -> Job:
    return partial(job, compress_dataset, "in", "out", "--shard-size", 2, "--coder", "static")


def keys(output: Path, bundle: Path) -> list[str]:
    return [sample["key"] for sample in CompressedImages(str(output), bundle=str(bundle))]


def test_each_day_adds_its_images_and_a_day_without_any_says_so(
    compress: Job, images: Path, tmp_path: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for numbers in ([4, 5, 6], [0, 1, 7], [2]):
        add(images, *numbers)
        assert compress("--append") == ExitCode.DONE
        assert f"that are new: {len(numbers)}" in capsys.readouterr().err
    before = Output(str(tmp_path / "out")).markers()
    assert [len(marker.files) and marker.summary.num_images for marker in before] == [2, 1, 2, 1, 1]
    assert keys(tmp_path / "out", tiny_bundle) == [f"{number}.png" for number in (4, 5, 6, 0, 1, 7, 2)]

    assert compress("--append") == ExitCode.DONE
    assert "that are new: none; 7 are known" in capsys.readouterr().err
    assert Output(str(tmp_path / "out")).markers() == before
    assert compress() == ExitCode.DONE, "the command without the flag finds all done"


def test_readers_see_all_that_was_appended(
    compress: Job,
    job: Job,
    images: Path,
    tmp_path: Path,
    tiny_bundle: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    add(images, 3, 4, 5)
    assert compress() == ExitCode.DONE
    follow: dict[str, Job] = {
        "restored": partial(job, decompress_dataset, "out", "restored"),
        "copy": partial(job, recode_dataset, "out", "copy", "--coder", "adaptive"),
    }
    assert [run() for run in follow.values()] == [ExitCode.DONE, ExitCode.DONE]
    add(images, 0, 1)
    assert compress("--append") == ExitCode.DONE
    assert [run() for run in follow.values()] == [ExitCode.DONE, ExitCode.DONE], "they go on with what was added"

    everything = [f"{number}.png" for number in (3, 4, 5, 0, 1)]
    assert sorted(path.name for path in (tmp_path / "restored" / "images").iterdir()) == sorted(everything)
    for name in ("out", "copy"):
        assert keys(tmp_path / name, tiny_bundle) == everything
        assert job(verify_dataset, name, None, "--decode", "--originals", images) == ExitCode.DONE
    dataset = CompressedImages(str(tmp_path / "out"), bundle=str(tiny_bundle))
    assert len(dataset) == 5 and dataset["0.png"]["key"] == dataset[3]["key"] == "0.png"
    assert len(bitstream_files(str(tmp_path / "out"))) == 3
    run = gather(CompressedDataset(str(tmp_path / "out")))
    assert (run.num_images_planned, run.num_shards_planned, len(run.shards), run.num_good) == (5, 3, 3, 5)
    capsys.readouterr()
    question = ["--input", str(tmp_path / "out"), "SELECT count(*) AS n, max(shard) AS s FROM images"]
    assert query_metrics.main([*question, "--format", "csv"]) == ExitCode.DONE
    assert capsys.readouterr().out.split() == ["n,s", "5,2"]


def test_what_is_appended_while_a_dataset_is_read_or_verified_disturbs_neither(
    compress: Job, job: Job, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(images, 0, 1)
    assert compress() == ExitCode.DONE
    dataset = CompressedDataset(str(tmp_path / "out"))

    def late(uri: str) -> CompressedDataset:
        opened = CompressedDataset(uri)
        add(images, 2, 3, 4)
        assert compress("--append") == ExitCode.DONE
        return opened

    monkeypatch.setattr(verify_dataset, "CompressedDataset", late)
    assert job(verify_dataset, "out", None) == ExitCode.DONE
    assert (len(dataset.markers), dataset.num_left, dataset.state()) == (1, 0, "")


def test_an_append_that_is_killed_goes_on_with_the_same_command(
    compress: Job, images: Path, tmp_path: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(images, 0, 1)
    assert compress("--append") == ExitCode.DONE
    add(images, 2, 3, 4, 5)
    with monkeypatch.context() as patch:
        original, done = Output.commit, list[int]()

        def commit(self: Output, shard: int, *arguments: Any, **options: Any) -> Any:
            if done:
                raise KeyboardInterrupt
            done.append(shard)
            return original(self, shard, *arguments, **options)

        patch.setattr(Output, "commit", commit)
        assert compress("--append") == ExitCode.FAILED
    with pytest.warns(UserWarning, match="is not finished: 4 of 6 images"):
        assert len(keys(tmp_path / "out", tiny_bundle)) == 4
    add(images, 6)
    assert compress("--append") == ExitCode.DONE
    assert keys(tmp_path / "out", tiny_bundle) == [f"{number}.png" for number in range(7)]


def test_days_with_kills_leave_every_image_once(tmp_path: Path) -> None:
    """The campaign, small."""
    told = grow(tmp_path, days=5, num_images=5, num_kills=3, seed=1)
    assert "3 jobs killed: 25 images in 5 shards of 5 plans" in told


def test_what_vanished_or_was_replaced_is_left_alone(
    compress: Job, images: Path, tmp_path: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add(images, 0, 1)
    assert compress("--append") == ExitCode.DONE
    before = Output(str(tmp_path / "out")).markers()
    (images / "0.png").unlink()
    shutil.copy(images / "1.png", images / "2.png")
    (images / "1.png").write_bytes(b"replaced")
    assert compress("--append") == ExitCode.DONE
    assert "not in the input any more, and stay in the output as they are: 1 (0.png)" in capsys.readouterr().err
    assert Output(str(tmp_path / "out")).markers()[:1] == before
    assert keys(tmp_path / "out", tiny_bundle) == ["0.png", "1.png", "2.png"]


def test_the_exit_code_is_that_of_what_was_added(compress: Job, images: Path) -> None:
    add(images, 0)
    (images / "broken.png").write_bytes(b"broken")
    assert compress("--append") == ExitCode.DONE_WITH_QUARANTINED
    assert compress("--append") == ExitCode.DONE
    add(images, 1)
    assert compress("--append") == ExitCode.DONE
    assert compress() == ExitCode.DONE_WITH_QUARANTINED, "of the whole output"


def test_a_dry_run_tells_of_what_is_new_and_writes_nothing(
    compress: Job, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add(images, 0, 1)
    assert compress("--append") == ExitCode.DONE
    before = sorted(tmp_path.rglob("*"))
    capsys.readouterr()
    assert compress("--append", "--dry-run") == ExitCode.DONE
    assert "that are new: none; 2 are known" in capsys.readouterr().err
    add(images, 2, 3, 4)
    before += [images / f"{number}.png" for number in (2, 3, 4)]
    assert compress("--append", "--dry-run") == ExitCode.DONE
    told = capsys.readouterr()
    assert "that are new: 3; 2 are known" in told.err
    assert "3, 0 of them compressed already" in told.out and "3 of 3 images at random" in told.out
    assert sorted(tmp_path.rglob("*")) == sorted(before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--append", "--quality", 2], "quality was 4.0, now 2"),
        (["--append", "--overwrite"], "--append is given with --overwrite"),
        (["--append", "--max-total-bytes", "1MB"], "--append is given with --max-total-bytes"),
    ],
)
def test_what_does_not_fit_is_refused(
    compress: Job, images: Path, capsys: pytest.CaptureFixture[str], options: list[object], message: str
) -> None:
    add(images, 0)
    assert compress("--quality", 4) == ExitCode.DONE
    add(images, 1)
    try:
        code = compress(*options)
    except SystemExit as error:  # on the command line
        code = int(error.code or 0)
    assert code == ExitCode.WRONG_USAGE
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())
