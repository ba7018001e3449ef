"""The check of the relaxation as a picture."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bls.ladder import quality_text
from pipeline.drawing import by_quality, render

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_relaxation(table: pa.Table, *, coders: Sequence[str], image_format: str = "png") -> bytes:
    """Draw noise against rounding, a dot per image and quality (`schema.RELAXATION`): error, entropy, and real bits."""
    rows = table.to_pylist()
    qualities = sorted({row["quality"] for row in rows})
    markers = ("o", "^", "s", "D")
    panels = (
        ("mean squared error", "rounded", "noisy", "mse_255", ["noisy_mse_255"]),
        (
            "entropy in bits per pixel",
            "discrete, of rounded latents",
            "differential, of noisy latents",
            "bpp",
            ["noisy_bpp"],
        ),
        ("bits per pixel", "discrete entropy", "whole bitstream", "bpp", [f"{coder}_bpp" for coder in coders]),
    )

    def draw(figure: "Figure") -> None:
        for axes, (title, x_label, y_label, measure, columns) in zip(figure.subplots(1, 3), panels, strict=True):
            for column, marker in zip(columns, markers, strict=False):
                for quality, colour in by_quality(qualities):
                    chosen = [row for row in rows if row["quality"] == quality]
                    values = [[row[name] for row in chosen] for name in (f"rounded_{measure}", column)]
                    axes.scatter(*values, s=22, marker=marker, color=colour, alpha=0.75, linewidth=0)
            axes.set(xscale="log", yscale="log", xlabel=x_label, ylabel=y_label)
            _draw_identity(axes)
            _plain_numbers(axes)
            axes.set_title(title, loc="left", fontsize=11)
        first, _, last = figure.axes
        _legend(first, [(f"quality {quality_text(quality)}", "o", colour) for quality, colour in by_quality(qualities)])
        _legend(last, [(coder, marker, "#555555") for coder, marker in zip(coders, markers, strict=False)])

    return render(draw, size=(13.5, 4.8), image_format=image_format)


def _draw_identity(axes: "Axes") -> None:
    """Give both axes the same range, and draw the line on which both values are equal."""
    limits: npt.NDArray[np.float64] = np.array([axes.get_xlim(), axes.get_ylim()])
    ends = limits[:, 0].min(), limits[:, 1].max()
    axes.plot(ends, ends, color="#999999", linewidth=0.8, zorder=0)
    axes.set(xlim=ends, ylim=ends, box_aspect=1)


def _plain_numbers(axes: "Axes") -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter(NullFormatter())


def _legend(axes: "Axes", entries: Sequence[tuple[str, str, Any]]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], linestyle="", marker=marker, color=colour, label=label) for label, marker, colour in entries
    ]
    axes.legend(handles=handles, frameon=False, loc="upper left", handletextpad=0.1)
