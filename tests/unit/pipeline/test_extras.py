import pytest

from pipeline.extras import check_installed


def test_a_package_that_is_missing_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    check_installed("numpy", extra="evaluate", what="pictures")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"matplotlib is required for pictures: pip install 'bls-codec\[evaluate\]'"):
        check_installed("matplotlib", extra="evaluate", what="pictures")
