"""Jobs with `--max-total-bytes`, their one worker in this process."""

import shutil
from collections.abc import Callable, Generator, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from skimage import data

from jobs import compress_dataset
from pipeline.cluster.run import run_to_end
from pipeline.console.exits import ExitCode
from pipeline.ledger.markers import Marker
from pipeline.ledger.output import Output
from pipeline.ledger.shard import Shard
from pipeline.status import GOOD
from tests.inline import InlineCluster, run_inline

NUM_IMAGES = 96


class Killed(Exception):
    pass


@pytest.fixture(autouse=True)
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    run_inline(monkeypatch, compress_dataset)
    monkeypatch.setattr("jobs.budget.SAMPLE_SIZE", 16)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return crops of several sizes from four photographs, the plainest first, and a text."""
    folder = tmp_path_factory.mktemp("photographs")
    for number in range(NUM_IMAGES):
        photograph = (data.rocket(), data.chelsea(), data.coffee(), data.astronaut())[number * 4 // NUM_IMAGES]
        side = 48 + 8 * (number % 5)
        top, left = 37 * number % (photograph.shape[0] - side), 53 * number % (photograph.shape[1] - side)
        Image.fromarray(photograph[top : top + side, left : left + side]).save(folder / f"{number:02d}.png")
    (folder / "50.png").write_text("no image")
    return folder


@pytest.fixture
def compress(photographs: Path, tmp_path: Path) -> Callable[..., int]:
    def compress(budget: object, *arguments: str, output: str = "out") -> int:
        paths = ["--input", str(photographs), "--output", str(tmp_path / output)]
        return compress_dataset.main([*paths, "--max-total-bytes", str(budget), *arguments])

    return compress


def rows(output: Path) -> list[dict[str, Any]]:
    markers = Output(str(output)).markers()
    tables = [pq.read_table(output / marker.files["metrics"].name) for marker in markers]
    return pa.concat_tables(tables).to_pylist()  # type: ignore[no-any-return]


def total(output: Path) -> int:
    return sum(row["num_bytes"] for row in rows(output) if row["status"] in GOOD)


def timeless(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if not name.endswith("_seconds")} for row in rows]


def test_the_total_is_within_the_budget_whatever_is_killed(
    compress: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compress(60_000, output="plain") == 3
    assert 0.97 * 60_000 <= total(tmp_path / "plain") <= 60_000
    printed = capsys.readouterr().out
    assert "budget 60 kB" in printed and "% of it" in printed
    made = rows(tmp_path / "plain")
    assert {row["target"] for row in made} == {"total bytes <= 60000"}
    assert all((row["quality"] is None) == (row["target_met"] is not None) or row["status"] != "ok" for row in made)

    def killed(
        cluster: InlineCluster, make_worker: Callable[[], Any], shards: Iterator[Shard | None]
    ) -> Generator[Marker, None, None]:
        yield from islice(InlineCluster.run(cluster, make_worker, shards), 7)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(compress_dataset, "run_to_end", partial(run_to_end, run=killed))
        for _ in range(2):
            with pytest.raises(Killed):
                compress(60_000)
    assert compress(60_000) == 3
    assert timeless(rows(tmp_path / "out")) == timeless(made)

    capsys.readouterr()
    assert compress(61_000) == 2
    assert "target was total bytes <= 60000, now total bytes <= 61000" in capsys.readouterr().err


def test_kept_originals_are_within_the_budget(photographs: Path, tmp_path: Path) -> None:
    images = Path(shutil.copytree(photographs, tmp_path / "images"))
    for path in list(images.glob("?[258].png")):
        Image.open(path).save(path.with_suffix(".webp"), quality=0)
        path.unlink()
    given = ["--input", str(images), "--output", str(tmp_path / "out"), "--max-total-bytes", "50000"]
    assert compress_dataset.main([*given, "--keep-smaller"]) == ExitCode.DONE_WITH_QUARANTINED
    assert 0.9 * 50_000 <= total(tmp_path / "out") <= 50_000
    kept = [row for row in rows(tmp_path / "out") if row["status"] == "kept"]
    assert len(kept) > 10 and all(row["num_bytes"] == row["source_num_bytes"] and row["quality"] for row in kept)


def test_a_total_over_the_budget_is_corrected(
    compress: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pipeline.compress.budget.AIM", 1.06)
    assert compress(60_000) == 3
    assert "the total is over the budget" in capsys.readouterr().err
    assert 0.9 * 60_000 <= total(tmp_path / "out") <= 60_000
    made = rows(tmp_path / "out")
    assert len(made) == NUM_IMAGES and len({row["key"] for row in made}) == NUM_IMAGES
    assert compress(60_000) == 3 and rows(tmp_path / "out") == made


@pytest.mark.parametrize("budget", ["1kB", "1GB"])
def test_a_budget_out_of_reach_is_refused_with_the_numbers(
    compress: Callable[..., int], tmp_path: Path, budget: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compress(budget) == 2
    message = capsys.readouterr().err
    assert "expected a budget from about" in message and f"{NUM_IMAGES} images take at quality 1, to" in message
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_dry_run_shows_the_curve(
    compress: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compress(60_000, "--dry-run") == 0
    printed = capsys.readouterr().out
    assert "--max-total-bytes 60000" in printed  # in the command that does it
    lines = [line for line in printed.splitlines() if line.strip().startswith("quality ")]
    assert len(lines) == 8 and all(line.endswith("dB") for line in lines)
    psnrs_db = [float(line.split()[-2]) for line in lines]
    assert psnrs_db == sorted(psnrs_db)
    assert not (tmp_path / "out").exists()
