"""The picture of benchmarks/effort.py: bits against time, a line for each codec."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.drawing import render

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMES = {
    "bls": ("ours, effort", "#0072b2"),
    "avif": ("AVIF, speed", "#d55e00"),
    "jpeg-xl": ("JPEG XL, effort", "#009e73"),
}


def draw(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Return the picture as SVG."""

    def figure(figure: "Figure") -> None:
        axes = figure.subplots()
        for codec, (name, colour) in NAMES.items():
            points = [row for row in rows if row["codec"] == codec]
            seconds = [row["cpu_seconds_per_megapixel"] for row in points]
            bits = [row["bits_at_equal_psnr_percent"] for row in points]
            axes.plot(seconds, bits, "o-", color=colour, label=name)
            for row, x, y in zip(points, seconds, bits, strict=True):
                axes.annotate(str(row["level"]), (x, y), (4, 4), textcoords="offset points", color=colour)
        axes.set_xscale("log")
        axes.set_xlabel("CPU seconds a megapixel, encoding")
        axes.set_ylabel("bits at equal PSNR against effort 0, %")
        axes.legend(frameon=False)

    return render(figure, size=(6, 4), image_format="svg")
