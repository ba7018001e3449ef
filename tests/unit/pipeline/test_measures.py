from pipeline.ledger.schema import METRICS
from pipeline.measures import MEASURES, MS_SSIM, PSNR, RATE


def test_every_measure_is_a_column_of_the_metrics() -> None:
    assert MEASURES.keys() <= set(METRICS.names)
    assert [name for name, measure in MEASURES.items() if not measure.higher_is_better] == ["bpp"]


def test_values_are_printed_with_their_units() -> None:
    texts = [measure.text(value) for measure, value in ((PSNR, 31.25), (MS_SSIM, 0.98), (RATE, 0.5), (PSNR, None))]
    assert texts == ["31.25 dB", "0.9800", "0.500 bpp", "none"]
