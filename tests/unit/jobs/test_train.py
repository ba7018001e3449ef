from dataclasses import replace

import pytest

from jobs.train import Train, _print_summary


def test_the_warm_up_is_an_option() -> None:
    config = Train(data=("photos",), output="models", storage="runs")
    assert config.fits()[0].training.warmup_steps == 200
    (fit,) = replace(config, warmup_steps=20).fits()
    assert fit.training.warmup_steps == 20
    with pytest.raises(ValueError, match="--warmup-steps is -1, expected 0 or more"):
        replace(config, warmup_steps=-1)


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
