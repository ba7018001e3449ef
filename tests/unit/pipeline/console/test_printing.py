import shlex
from pathlib import Path

import pytest

from pipeline.console.printing import job_command, metrics_glob, print_damage, shown, writing_command
from pipeline.console.text import (
    bitstreams_row,
    counts_text,
    mean_text,
    num_bytes_text,
    rate_text,
    size_rows,
    skipped_text,
    speed_text,
)
from pipeline.ledger.damage import DamagedFileError
from pipeline.ledger.manifest import Manifest, Plan
from pipeline.ledger.output import Output
from pipeline.ledger.summary import Mean, Summary


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (148_321, "148 kB"), (2_180_000, "2.18 MB"), (5 * 10**15, "5e+03 TB")],
)
def test_sizes_have_a_unit(num_bytes: int, text: str) -> None:
    assert num_bytes_text(num_bytes) == text


@pytest.mark.parametrize(
    ("num_bytes_in", "num_bytes_out", "text"),
    [
        (1000, 69, "69 B, 6.9 % of it"),
        (1240, 1280, "1.28 kB, 103.2 % of it"),
        (148, 3530, "3.53 kB, 23.9 times as much"),
        (0, 0, "0 B"),
    ],
)
def test_sizes_are_compared(num_bytes_in: int, num_bytes_out: int, text: str) -> None:
    summary = Summary(num_bytes_in=num_bytes_in, num_bytes_out=num_bytes_out)
    assert size_rows("before", "after", summary)[1] == ("after", text)


def test_what_is_beside_bitstreams_is_told() -> None:
    assert bitstreams_row(Summary(num_bytes_out=20, num_bytes_bitstreams=20)) == []
    (row,) = bitstreams_row(Summary(num_bytes_out=2020, num_bytes_bitstreams=20))
    assert row == ("bitstreams", "20 B; 2 kB more are EXIF, ICC, alpha and carried data")


def test_a_run_that_finished_nothing_does_not_say_that_nothing_was_left() -> None:
    assert speed_text(Summary(), 1.0, seconds_to_start=0, num_left=0) == "nothing was left to do"
    assert speed_text(Summary(), 1.0, seconds_to_start=0, num_left=200) == "no image was finished"
    assert counts_text("compressed", Summary(88, {"empty": 3}), num_left=112) == (
        "85 compressed, 3 quarantined, 112 left"
    )


def test_the_command_that_goes_on_with_a_grown_dataset_appends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/usr/bin/bls-verify"])
    output = Output(str(tmp_path))
    begun = output.begin(Manifest(job="compress", arguments=["--input", "x"], plans=(Plan("0" * 32),)))
    assert writing_command(output) == "bls-compress --input x"
    output.append(begun, Plan("1" * 32))
    assert writing_command(output) == "bls-compress --input x --append"


def test_damage_is_named_with_the_commands_that_mend_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["/usr/bin/bls-decompress"])
    output = Output(str(tmp_path))
    output.begin(Manifest(job="recode", arguments=["--input", "x"]))
    print_damage([], dataset=output, bundle=None)
    assert capsys.readouterr() == ("", "")
    errors = [DamagedFileError(f"{number} is missing", is_of_a_shard=True) for number in range(12)]
    print_damage(errors, dataset=output, bundle="b", again="bls-decompress")
    out, told = capsys.readouterr()
    assert told.splitlines()[0] == "error: 0 is missing"
    assert told.splitlines()[-2:] == [
        "error: and so with 2 more",
        "12 shards were left out for this, all others are done",
    ]
    commands = [line.strip() for line in out.splitlines() if line.startswith("  ")]
    assert commands == [f"bls-verify --input {tmp_path} --bundle b --repair", "bls-recode --input x", "bls-decompress"]
    print_damage([DamagedFileError("records")], dataset=output, bundle=None)
    assert capsys.readouterr().out == "", "no job mends it"


def test_a_speed_does_not_count_the_start_of_ray() -> None:
    summary = Summary(10, num_pixels=5_000_000)
    rates = "10 images in 2 s: 5.0 images/s, 2.50 MP/s"
    assert speed_text(summary, 2.0, seconds_to_start=0, num_left=0) == rates
    started = f"{rates}, after 8 s in which Ray and the workers started"
    assert speed_text(summary, 10.0, seconds_to_start=8.0, num_left=0) == started


def test_bytes_of_quarantined_images_are_named() -> None:
    rows = [{"key": "a", "status": "ok", "width": 1, "height": 1, "num_bytes": 9, "source_num_bytes": 5000}]
    rows += [{"key": "b", "status": "corrupt", "error_message": "", "source_num_bytes": 2000}]
    rows += [{"key": "c", "status": "unreadable", "error_message": "", "source_num_bytes": None}]
    summary = Summary.of_rows(rows, bytes_in=["source_num_bytes"], bytes_out=["num_bytes"])
    assert size_rows("source", "stored", summary)[0] == ("source", "5 kB; 2 kB more are of quarantined images")
    assert (summary + summary).num_bytes_quarantined == 4000


def test_means_tell_of_how_many_images() -> None:
    assert mean_text(Mean(97.5, 3), ".2f", "dB") == "32.50 dB, mean of 3 images"
    assert mean_text(Mean(), ".2f", "dB") == "none"


def test_one_tiny_image_does_not_rule_the_rate() -> None:
    summary = Summary(2, num_pixels=1_000_001, num_bytes_bitstreams=125_020, bpp=Mean(161.0, 2))
    assert rate_text(summary) == "1.000 (all bits over all pixels; mean of images 80.500)"
    assert rate_text(Summary()) == "none"


def test_skipped_files_are_named_the_most_frequent_first() -> None:
    text = skipped_text({".json": 1, ".txt": 9, "hidden": 2, ".a": 1, ".b": 1, ".c": 1})
    assert text.startswith("skipped 15 files or samples that are not images: .txt 9, hidden 2, .json 1")
    assert text.endswith(", ...")


def test_commands_can_be_pasted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From wherever the user is, with the Python that runs now."""
    for folder in (Path(__file__).parents[4], tmp_path):
        monkeypatch.chdir(folder)
        python, script, *arguments = shlex.split(job_command("compress_dataset", "--input", "a b'c"))
        assert (folder / python).exists() or python == "python"
        assert (folder / script).is_file()
        assert arguments == ["--input", "a b'c"]


def test_paths_below_the_user_are_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert metrics_glob(Output("out")) == "out/metrics/*.parquet"
    assert shown(Output("/elsewhere")) == "/elsewhere"
