"""No job deletes or replaces a file that it did not write, in outputs that overlap inputs or hold other files."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from bls import __main__ as bls_command
from bls.bundle import save_bundle
from jobs import (
    check_relaxation,
    compress_dataset,
    decompress_dataset,
    evaluate,
    query_metrics,
    recode_dataset,
    report,
    train,
    verify_dataset,
)
from pipeline.console.exits import ExitCode, exit_code
from pipeline.decompress.worker import DecompressionConfig, ShardDecompressor, StoredImage
from pipeline.ledger.manifest import Manifest, Plan
from pipeline.ledger.markers import Committed
from pipeline.ledger.output import Output, OutputError
from pipeline.ledger.shard import Shard
from pipeline.ledger.summary import Summary
from pipeline.read.dataset import CompressedDataset
from pipeline.sources.opening import check_apart
from pipeline.work.codec import CodecSpec
from tests.bundles import small_network
from tests.datasets import Sample, pixels, write_dataset
from tests.inline import run_inline

FOREIGN = b"somebody's"


def save_images(folder: Path, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(count):
        Image.fromarray(pixels(20, 24, seed=seed)).save(folder / f"{seed}.png")


def snapshot(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    save_bundle(folder, [small_network()])
    return folder


JOBS: dict[str, Callable[[Path, Path, Path], int]] = {
    "compress": lambda x, out, bundle: compress_dataset.main(
        ["--input", str(x), "--output", str(out), "--bundle", str(bundle), "--overwrite"]
    ),
    "dry run": lambda x, out, bundle: compress_dataset.main(
        ["--input", str(x), "--output", str(out), "--bundle", str(bundle), "--dry-run"]
    ),
    "decompress": lambda x, out, bundle: decompress_dataset.main(
        ["--input", str(x), "--output", str(out), "--bundle", str(bundle), "--overwrite"]
    ),
    "recode": lambda x, out, bundle: recode_dataset.main(
        ["--input", str(x), "--output", str(out), "--bundle", str(bundle), "--coder", "static", "--overwrite"]
    ),
    "query": lambda x, out, _: query_metrics.main(
        ["--input", str(x), "SELECT key FROM images", "--output", f"{out}/rows.txt", "--overwrite"]
    ),
    "evaluate": lambda x, out, bundle: evaluate.main(
        ["--input", str(x), "--output", str(out), "--bundle", str(bundle), "--overwrite"]
    ),
    "panels": lambda x, out, bundle: evaluate.main(
        ["--input", str(x), "--output", str(out), "--bundle", str(bundle), "--panels"]
    ),
    "relaxation": lambda x, out, bundle: check_relaxation.main(
        ["--input", str(x), "--output", str(out), "--bundle", str(bundle)]
    ),
    "report": lambda x, out, bundle: report.main(
        ["--input", str(x), "--output", f"{out}/report.html", "--bundle", str(bundle), "--overwrite"]
    ),
    "train": lambda x, out, _: exit_code(
        lambda: train.train(train.Train(data=(str(x),), storage=f"{out}-storage", output=str(out), qualities=("4",)))
    ),
    "train storage": lambda x, out, _: exit_code(
        lambda: train.train(train.Train(data=(str(x),), storage=str(out), output=f"{out}-bundle", qualities=("4",)))
    ),
}
OF_COMPRESSED = ("decompress", "recode", "query", "report")
"""Jobs whose input is a compressed dataset."""
OF_ONE_FILE = ("query", "report")
OVERLAPS = {
    "the same": lambda x: x,
    "inside": lambda x: x / "plan",
    "deep inside": lambda x: x / "a/b",
    "around": lambda x: x.parent,
    "far around": lambda x: x.parent.parent,
    "by a link": lambda x: x.parent.parent.parent / "link",
}


@pytest.mark.parametrize(
    ("job", "overlap"),
    # One file beside the input overlaps nothing.
    [(job, overlap) for job in JOBS for overlap in OVERLAPS if job not in OF_ONE_FILE or "around" not in overlap],
)
def test_an_output_that_overlaps_the_input_is_refused(
    tmp_path: Path, bundle: Path, job: str, overlap: str, capsys: pytest.CaptureFixture[str]
) -> None:
    x = tmp_path / "top/ds/images"
    save_images(x, 2)
    if job in OF_COMPRESSED:
        shutil.rmtree(x)
        write_dataset(x, bundle, [[Sample("a.png", pixels(20, 24))]])
    for name in ("plan/a.jpg", "tars/a.tar", "metrics/a.parquet", "commits/notes.json", "README.md", "a/b/c.txt"):
        for folder in (x, x.parent):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(FOREIGN)
    (tmp_path / "link").symlink_to(x)
    before = snapshot(tmp_path)
    assert JOBS[job](x, OVERLAPS[overlap](x), bundle) == ExitCode.WRONG_USAGE
    assert "overlaps the input" in capsys.readouterr().err
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("input", "output", "is_refused"),
    [
        ("/d/photos", "/d/photos-compressed", False),
        ("/d/photos/*.jpg", "/d/photos/out", False),
        ("/d/photos/**/*.jpg", "/d/photos/out", True),
        ("/d/photos/*/a.jpg", "/d/photos/out", True),
        ("/d/photos/*/a.jpg", "/d", True),
        ("/d/{000..099}.tar", "/d/out", False),
        ("/d/a.tar", "/d/out", False),
        ("/d/a.tar", "/d", True),
        ("s3://bucket/photos", "s3://bucket/photos2", False),
        ("s3://key:secret@bucket/photos/", "S3://bucket//photos/out", True),
        ("s3://bucket/photos", "gs://bucket/photos", False),
    ],
)
def test_what_overlaps(input: str, output: str, is_refused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    class Absent:
        def exists(self) -> bool:
            return False

    monkeypatch.setattr("pipeline.sources.opening.open_folder", lambda _: Absent())
    if not is_refused:
        check_apart(output, input)
        return
    with pytest.raises(ValueError, match="overlaps the input") as caught:
        check_apart(output, input)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["plan/a.jpg", "images/a.jpg", "metrics/notes.txt", "written/a.json", "images/a.tar"])
def test_an_output_with_other_files_is_refused(tmp_path: Path, name: str) -> None:
    output = Output(str(tmp_path))
    output.folder.write(name, FOREIGN)
    with pytest.raises(OutputError, match=f"did not write, {name} for example: use another --output"):
        output.begin(Manifest(job="compress", plans=(Plan("1" * 32),)))
    assert snapshot(tmp_path) == {name: FOREIGN}


@pytest.mark.parametrize("job", ["compress", "decompress", "recode", "evaluate"])
def test_a_job_leaves_all_that_is_in_the_folder_of_its_output(tmp_path: Path, bundle: Path, job: str) -> None:
    x, out = tmp_path / "x", tmp_path / "out"
    if job in OF_COMPRESSED:
        write_dataset(x, bundle, [[Sample("a.png", pixels(20, 24))]])
    else:
        save_images(x, 2)
    for folder in ("plan", "images", "tars", "metrics", "bitstreams", "commits", "written", "verify", "shards/plan"):
        (out / folder).mkdir(parents=True)
        (out / folder / "a.jpg").write_bytes(FOREIGN)
    before = snapshot(tmp_path)
    assert JOBS[job](x, out, bundle) == ExitCode.WRONG_USAGE
    assert snapshot(tmp_path) == before


def test_verifying_and_repairing_leave_what_others_put_into_a_dataset(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_inline(monkeypatch, compress_dataset, verify_dataset)
    save_images(tmp_path / "x", 2)
    out = tmp_path / "out"
    assert JOBS["compress"](tmp_path / "x", out, bundle) == ExitCode.DONE
    foreign = [
        f"{folder}/{name}" for folder in ("verify", "metrics", "commits", "plan") for name in ("a.jpg", "x.parquet")
    ]
    for name in foreign:
        Output(str(out)).folder.write(name, FOREIGN)
    before = snapshot(tmp_path / "out")
    verify = ["--input", str(out), "--bundle", str(bundle), "--repair"]
    assert verify_dataset.main([*verify, "--decode"]) == ExitCode.DONE
    (marker,) = Output(str(out)).markers()
    damaged = marker.files["bitstreams"].name
    (out / damaged).write_bytes(b"")
    assert verify_dataset.main(verify) == ExitCode.DONE_IN_PART
    after = snapshot(tmp_path / "out")
    assert {name for name in before if after.get(name) != before[name]} == {damaged, f"commits/{marker.name}"}


def test_what_a_killed_run_left_does_not_prevent_a_beginning(tmp_path: Path) -> None:
    output = Output(str(tmp_path))
    output.folder.write(f"plan/part-00000.{'2' * 32}.parquet", b"")
    output.folder.write(f"metrics/.tmp-{'3' * 32}", b"")
    assert output.record_written(0, ["a/x.png"]) == set()
    output.folder.write("images/a/x.png", b"")
    output.begin(Manifest(job="compress", plans=(Plan("1" * 32),)))


def test_clearing_and_sweeping_leave_what_others_put_there_later(tmp_path: Path) -> None:
    output = Output(str(tmp_path))
    output.begin(Manifest(job="decompress", plans=(Plan("1" * 32),)))
    foreign = ["plan/a.jpg", "plan/part-1.jpg", "images/b/keep.png", "images/.tmp-mine", "metrics/x.parquet"]
    foreign += ["images/a.tar", "commits/notes.json", "bitstreams/shard-000000.parquet", "written/x.json", "a.txt"]
    for name in foreign:
        output.folder.write(name, FOREIGN)
    assert output.record_written(0, ["b/ours.png", "b/keep.png"]) == {"b/keep.png"}
    output.folder.write("images/b/ours.png", b"ours")
    output.commit(0, {"metrics": b"rows"}, Summary(1))
    output.sweep(output.up_to_date(Committed()))
    assert snapshot(tmp_path).keys() > set(foreign)
    output.clear("decompress")
    assert snapshot(tmp_path) == dict.fromkeys(foreign, FOREIGN)


def test_restoring_replaces_its_own_images_only(tmp_path: Path, bundle: Path) -> None:
    x, out = tmp_path / "x", tmp_path / "out"
    write_dataset(x, bundle, [[Sample(f"{stem}.jpg", pixels(20, 24, seed=1), stem=stem) for stem in ("a/b", "a/c")]])
    dataset = CompressedDataset(str(x))
    (marker,) = dataset.markers
    config = DecompressionConfig(
        input=str(x),
        output=str(out),
        image_format="png",
        codec=CodecSpec.of(str(bundle), 4, max_pixels=2**22),
    )
    shard = Shard(0, (StoredImage(marker.files["bitstreams"], 0), StoredImage(marker.files["bitstreams"], 1)))
    Output(str(out)).begin(Manifest(job="decompress", plans=(Plan("1" * 32),)))
    foreign = out / "images/a/b.png"
    foreign.parent.mkdir(parents=True)
    foreign.write_bytes(FOREIGN)
    worker = ShardDecompressor(config)
    worker.probe(shard)  # a killed attempt: its file is replaced by the next
    (out / "images/a/c.png").write_bytes(b"half")
    summary = worker.run(shard).summary
    assert (summary.num_images, summary.quarantined) == (2, {"unwritable": 1})
    assert "did not write is there: move it away" in summary.examples["unwritable"]
    assert foreign.read_bytes() == FOREIGN
    assert (out / "images/a/c.png").read_bytes()[:4] == b"\x89PNG"
    Output(str(out)).clear("decompress")
    assert snapshot(out) == {"images/a/b.png": FOREIGN}


@pytest.mark.parametrize("job", ["evaluate", "panels", "relaxation", "train"])
def test_results_of_fixed_names_do_not_replace_other_files(
    tmp_path: Path, bundle: Path, job: str, capsys: pytest.CaptureFixture[str]
) -> None:
    save_images(tmp_path / "x", 2)
    out = tmp_path / "out"
    out.mkdir()
    (out / ("quality-4.safetensors" if job == "train" else "README.md")).write_bytes(FOREIGN)
    before = snapshot(tmp_path)
    assert JOBS[job](tmp_path / "x", out, bundle) == ExitCode.WRONG_USAGE
    assert "that this job did not write and would replace" in capsys.readouterr().err
    assert snapshot(tmp_path) == before


def test_a_report_replaces_reports_alone(tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_dataset(tmp_path / "x", bundle, [[Sample("a.png", pixels(20, 24))]])
    (tmp_path / "report.html").write_bytes(FOREIGN)
    assert JOBS["report"](tmp_path / "x", tmp_path, bundle) == ExitCode.WRONG_USAGE
    assert "is not a report, and is not replaced" in capsys.readouterr().err
    assert (tmp_path / "report.html").read_bytes() == FOREIGN


@pytest.mark.parametrize("command", ["encode", "decode"])
def test_single_files_are_replaced_when_asked(
    tmp_path: Path, bundle: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_images(tmp_path, 1)
    (picture,) = tmp_path.glob("*.png")
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> None:
        monkeypatch.setattr("sys.argv", ["bls", *arguments, "--bundle", str(bundle)])
        bls_command.main()

    run("encode", picture.name, "a.bls")
    source = picture.name if command == "encode" else "a.bls"
    there = tmp_path / ("there.bls" if command == "encode" else "there.png")
    there.write_bytes(FOREIGN)
    with pytest.raises(SystemExit, match="is there already: give another output, or --overwrite"):
        run(command, source, there.name)
    with pytest.raises(SystemExit, match=r"is an input itself|is not a name for a \.bls file"):
        run(command, source, f"../{tmp_path.name}/{source}", "--overwrite")
    assert there.read_bytes() == FOREIGN
    run(command, source, there.name, "--overwrite")
    assert there.read_bytes() != FOREIGN
    assert json.dumps(sorted(path.name for path in tmp_path.iterdir())).count("tmp") == 0
