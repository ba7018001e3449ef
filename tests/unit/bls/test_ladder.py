import pytest

from bls.ladder import QualityError, QualityRange, check_disjoint, index_of, lmbda_of, quality_of, quality_text

FIELD = (0.0018, 0.0035, 0.0067, 0.0130, 0.0250, 0.0483, 0.0932, 0.1800)
"""The weights that the field's evaluations use, rounded as they are published."""


def test_whole_qualities_are_the_fields_ladder() -> None:
    assert [lmbda_of(float(quality)) for quality in range(1, 9)] == pytest.approx(FIELD, rel=0.01)


def test_an_index_is_the_nearest_step() -> None:
    assert [index_of(quality) for quality in (1, 4, 4.37, 8)] == [256, 1024, 1119, 2048]
    assert all(index_of(quality_of(index)) == index for index in range(256, 2049))
    assert quality_text(quality_of(index_of(4.37))) == "4.371"
    assert [quality_text(quality) for quality in (4.0, 4.5, 8)] == ["4", "4.5", "8"]


@pytest.mark.parametrize(("text", "low", "high"), [("4", 4, 4), ("1:4.5", 1, 4.5), ("8", 8, 8)])
def test_ranges_are_read_and_said(text: str, low: float, high: float) -> None:
    qualities = QualityRange.parse(text)
    assert (qualities.low, qualities.high, str(qualities)) == (low, high, text)
    assert qualities.stem == text.replace(":", "-")


@pytest.mark.parametrize("text", ["", "a", "1:b", "5:4", "0.9:3", "3:8.1", "nan", "1:2:3"])
def test_what_is_not_a_range_is_refused(text: str) -> None:
    with pytest.raises(QualityError):
        QualityRange.parse(text)


def test_ranges_that_share_a_quality_are_named() -> None:
    check_disjoint([QualityRange(4.5, 8), QualityRange(1, 4.25)])
    with pytest.raises(QualityError, match=r"qualities 1:4\.5 and 4\.5:8 overlap"):
        check_disjoint([QualityRange(4.5, 8), QualityRange(1, 4.5)])


def test_a_range_is_spread_evenly_from_end_to_end() -> None:
    assert QualityRange(1, 2.2).spread(0.5) == pytest.approx([1, 1.4, 1.8, 2.2])
    assert QualityRange(4, 4).spread(0.5) == [4]
    assert QualityRange(1, 4.5).whole == [1, 2, 3, 4] and QualityRange(4.2, 4.6).whole == [pytest.approx(4.4)]
    assert 4.5 in QualityRange(1, 4.5) and 4.51 not in QualityRange(1, 4.5)
