import pytest

from jobs.train import Train, _print_summary


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
