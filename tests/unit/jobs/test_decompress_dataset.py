"""The decompress job with its one worker in this process."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from jobs import decompress_dataset
from pipeline.console.exits import ExitCode
from pipeline.ledger.output import Output
from tests.compressed import compress
from tests.datasets import pixels
from tests.inline import run_inline


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(6):
        Image.fromarray(pixels(20, 30, seed=number)).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def decompress(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    run_inline(monkeypatch, decompress_dataset)

    def run(*arguments: str) -> int:
        folders = ["--input", str(tmp_path / "out"), "--output", str(tmp_path / "restored")]
        return decompress_dataset.main([*folders, "--bundle", str(tiny_bundle), *arguments])

    return run


def test_a_part_is_restored_with_a_code_of_its_own(
    decompress: Callable[..., int],
    images: Path,
    tiny_bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    compress(images, tmp_path / "out", tiny_bundle, shard_size=2, num_shards=2)
    assert decompress() == ExitCode.DONE_IN_PART
    assert "not finished: 4 of 6 images are seen, 2 are left" in capsys.readouterr().err
    # An image that is asked for by its key is all that was wanted.
    assert decompress("--key", "0.png", "--overwrite") == ExitCode.DONE
    compress(images, tmp_path / "out", tiny_bundle, shard_size=2)
    capsys.readouterr()
    assert decompress("--overwrite") == ExitCode.DONE
    assert "not finished" not in capsys.readouterr().err
    assert len(list((tmp_path / "restored" / "images").iterdir())) == 6


def test_all_but_the_shards_of_damaged_files_are_restored(
    decompress: Callable[..., int],
    images: Path,
    tiny_bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    compress(images, tmp_path / "out", tiny_bundle, shard_size=1)
    files = [tmp_path / "out" / marker.files["bitstreams"].name for marker in Output(str(tmp_path / "out")).markers()]
    kept = {path: path.read_bytes() for path in (files[1], files[3])}
    files[1].unlink()
    files[3].write_bytes(kept[files[3]][:-9])
    assert decompress() == ExitCode.FAILED
    restored = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "restored/images").iterdir()}
    assert set(restored) == {"0.png", "2.png", "4.png", "5.png"}
    out, errors = capsys.readouterr()
    assert "4 restored, 0 quarantined, 2 left" in out
    told = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert [str(path) in line for path, line in zip(kept, told, strict=True)] == [True, True]
    assert errors.endswith("2 shards were left out for this, all others are done\n")
    assert f"verify_dataset.py --input {tmp_path / 'out'} --bundle {tiny_bundle} --repair" in out
    assert f"decompress_dataset.py --input {tmp_path / 'out'} --output {tmp_path / 'restored'}" in out.splitlines()[-1]

    for path, data in kept.items():
        path.write_bytes(data)
    assert decompress() == ExitCode.DONE
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "restored/images").iterdir()}
    assert set(after) == {f"{number}.png" for number in range(6)} and after.items() >= restored.items()


@pytest.mark.parametrize(
    ("where", "pattern"), [("true", "{000000..000002}.tar"), ("key <> '2.png' AND key <> '3.png'", "*.tar")]
)
def test_the_tars_are_named_as_webdataset_takes_them(
    decompress: Callable[..., int],
    images: Path,
    tiny_bundle: Path,
    tmp_path: Path,
    where: str,
    pattern: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    compress(images, tmp_path / "out", tiny_bundle, shard_size=2)
    assert decompress("--container", "webdataset", "--where", where) == ExitCode.DONE
    assert f"restored/images/{pattern}\n" in capsys.readouterr().out
