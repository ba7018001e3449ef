"""Inputs that once did harm: bitstreams end as symbols or are refused, image files end as rows."""

from pathlib import Path

import pytest

from tests.campaigns.damage import golden_codec
from tests.damaging import outcome_of_image, outcome_of_stream

FOUND = sorted(path for path in (Path(__file__).parent / "found").iterdir() if path.suffix in (".streams", ".images"))


@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.name)
def test_what_once_did_harm_does_none(path: Path) -> None:
    data = path.read_bytes()
    if path.suffix == ".streams":
        assert outcome_of_stream(data, golden_codec()) == "refused"
    else:
        assert outcome_of_image(data) in ("too_large", "truncated", "corrupt", "not_an_image")


def test_both_kinds_are_there() -> None:
    assert {path.suffix for path in FOUND} == {".streams", ".images"}
