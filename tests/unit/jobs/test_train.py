from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from jobs.train import Train, _print_summary, main
from tests.datasets import pixels


def test_the_warm_up_is_an_option() -> None:
    config = Train(data=("photos",), output="models", storage="runs")
    assert config.fits()[0].training.warmup_steps == 200
    (fit,) = replace(config, warmup_steps=20).fits()
    assert fit.training.warmup_steps == 20
    with pytest.raises(ValueError, match="--warmup-steps is -1, expected 0 or more"):
        replace(config, warmup_steps=-1)


@pytest.mark.parametrize(("address", "cpus"), [("", 4), ("local", 4), ("10.0.0.1:6379", 1)])
def test_workers_share_the_cpus_of_this_machine_unless_they_run_on_a_cluster(
    address: str, cpus: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert Train(data=("x",), output="y", storage="z", num_workers=2).resources().cpus_per_worker == cpus


@pytest.mark.parametrize(
    ("output", "bundle"),
    [("models/mine", "models/mine"), ("file:///models/mine", "/models/mine"), ("s3://b/mine/", "s3://b/mine")],
)
def test_the_next_command_names_a_bundle_that_can_be_read(
    output: str, bundle: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _print_summary(Train(data=("photos",), output=output, storage="runs"))
    printed = capsys.readouterr().out
    assert f"--bundle {bundle} --quality 4" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--qualities", "1:4", "3:8"), "qualities 1:4 and 3:8 overlap"),
        (("--qualities", "0.99"), "expected a number from 1 to 8"),
        (("--init", "nowhere#4"), "nowhere"),
        (("--evaluation-steps", "30"), "a multiple of --checkpoint-steps"),
        (("--num-workers", "9"), "--batch-size is 8"),
        (("--bfloat16", "some"), "--bfloat16"),
    ],
)
def test_wrong_usage_is_refused(
    arguments: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photographs").mkdir()
    Image.fromarray(pixels(64, 64, seed=1)).save(tmp_path / "photographs" / "1.png")
    folders = {"data": "photographs", "output": "bundle", "storage": "storage"}
    options = [part for name, folder in folders.items() for part in (f"--{name}", str(tmp_path / folder))]
    try:
        code: object = main([*options, *arguments])
    except SystemExit as error:
        code = error.code
    # tyro draws a frame around messages and breaks lines where it likes
    said = " ".join("".join(capsys.readouterr()).replace("│", " ").split())
    assert code == 2 and message in said, said
