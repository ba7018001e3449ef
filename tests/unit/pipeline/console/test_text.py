from pipeline.console.text import duration_text


def test_durations_have_the_unit_that_suits_them() -> None:
    seconds = (0.25, 90, 7_200, 400_000)
    assert [duration_text(each) for each in seconds] == ["0.2 s", "1.5 min", "2.0 h", "4.6 days"]
