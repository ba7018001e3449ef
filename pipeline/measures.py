"""The measures that the metrics have of every image: one place for their names, units, formats and directions."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """A column of the metrics, and how people read it; `bin_width` is that of histograms."""

    column: str
    name: str
    label: str
    meaning: str
    unit: str
    format: str
    higher_is_better: bool
    bin_width: float

    def text(self, value: float | None) -> str:
        """Return a value with its unit, or `none`."""
        return "none" if value is None else f"{value:{self.format}} {self.unit}".rstrip()


PSNR = Measure(
    column="psnr_db",
    name="PSNR",
    label="PSNR, dB",
    meaning="how close the pixels are, in decibels: more is closer",
    unit="dB",
    format=".2f",
    higher_is_better=True,
    bin_width=0.1,
)
MS_SSIM = Measure(
    column="ms_ssim",
    name="MS-SSIM",
    label="MS-SSIM",
    meaning="how alike structures look, 1 being equal",
    unit="",
    format=".4f",
    higher_is_better=True,
    bin_width=0.0005,
)
RATE = Measure(
    column="bpp",
    name="Rate",
    label="bits per pixel",
    meaning="bits per pixel of the bitstream: fewer is smaller",
    unit="bpp",
    format=".3f",
    higher_is_better=False,
    bin_width=0.01,
)
MEASURES = {measure.column: measure for measure in (PSNR, MS_SSIM, RATE)}
