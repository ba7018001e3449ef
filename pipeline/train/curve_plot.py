"""Training curves as a picture."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from pipeline.drawing import Label, by_quality, draw_name, render

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_training_curve(table: pa.Table, *, image_format: str = "png") -> bytes:
    """Draw the course of a training, a line per network: columns qualities, step, loss, estimated_bpp, psnr_db."""
    rows = table.to_pylist()
    qualities = sorted({row["qualities"] for row in rows})
    panels = (("loss", "loss"), ("estimated_bpp", "estimated bits per pixel"), ("psnr_db", "PSNR in dB"))

    def draw(figure: "Figure") -> None:
        for axes, (column, label) in zip(figure.subplots(3, 1, sharex=True), panels, strict=True):
            labels = []
            for quality, colour in by_quality(qualities):
                chosen = sorted((row["step"], row[column]) for row in rows if row["qualities"] == quality)
                steps, values = zip(*chosen, strict=True)
                marker = "o" if len(steps) == 1 else ""
                axes.plot(steps, values, color=colour, linewidth=1.4, marker=marker)
                labels.append(Label(f"quality {quality}", steps[-1], values[-1], colour))
            axes.set_ylabel(label)
            axes.set_xlim(0, max(row["step"] for row in rows))
            _focus(axes, [row[column] for row in rows])
            draw_name(axes, labels, inches=3)
        figure.axes[-1].set_xlabel("optimiser step")

    return render(draw, size=(8, 9), image_format=image_format)


def _focus(axes: "Axes", values: Sequence[float]) -> None:
    """Cut off the first steps of a training, which lie far from all others and would flatten the rest of the curve."""
    low, high = np.quantile(values, (0.005, 0.995))
    margin = 0.08 * (high - low) or 0.1
    axes.set_ylim(low - margin, high + margin)
