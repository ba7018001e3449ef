import pytest

from pipeline.console.progress import ProgressReport
from pipeline.ledger.summary import Summary, Tally


def test_progress_off_a_terminal_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    tally = Tally(Summary(2))
    with ProgressReport("compressed", num_images=6, tally=tally) as progress:
        for summary in (Summary(2, {"empty": 1}), Summary(2)):
            tally.add(summary)
            progress.show()
    assert capsys.readouterr().err == "compressed 6 of 6 images, 1 quarantined\n"
