from dataclasses import replace

from pipeline.console.text import bitstreams_row, counts_text, duration_text, grown_row, kept_row
from pipeline.ledger.summary import Summary


def test_durations_have_the_unit_that_suits_them() -> None:
    seconds = (0.25, 90, 7_200, 400_000)
    assert [duration_text(each) for each in seconds] == ["0.2 s", "1.5 min", "2.0 h", "4.6 days"]


def test_kept_originals_are_counted_apart() -> None:
    summary = Summary(5, {"empty": 1}, num_pixels=800, num_bytes_out=150, num_bytes_bitstreams=100, num_kept=2)
    summary = replace(summary, num_bytes_kept=50)
    assert counts_text("compressed", summary, num_left=0) == "2 compressed, 2 kept, 1 quarantined"
    assert kept_row(summary) == [("kept", "2 originals are stored, 50 B: bitstreams would be larger")]
    assert bitstreams_row(summary) == [], "nothing is beside bitstreams and originals"
    assert kept_row(Summary(5)) == []
    assert summary.total_bpp == 1.5


def test_images_that_grew_are_told_with_the_flag_that_would_save_that() -> None:
    summary = Summary(5, num_grown=2, num_bytes_grown=1200)
    told = "2 images take more bytes than the source, 1.2 kB in all"
    assert grown_row(summary, keeps_smaller=True) == [("larger", told)]
    with_flag = [("larger", f"{told}, which --keep-smaller from the start would save")]
    assert grown_row(summary, keeps_smaller=False) == with_flag
    assert grown_row(Summary(5), keeps_smaller=False) == []
