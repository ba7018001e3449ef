"""Pictures of measurements, as PNG or SVG: rate-distortion curves, the check of the relaxation, training curves.

matplotlib is imported when the first one is drawn: whoever only compresses never waits for it. Lines are named where
they end; colours (Okabe and Ito's, or viridis) stay apart for colour-blind readers.
"""

import importlib.util
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.curves import Curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 150
OUR_COLOUR = "#0072B2"
_FAMILY_COLOURS = {"jpeg-": "#D55E00", "jpeg2000": "#E69F00", "webp": "#009E73", "avif": "#CC79A7"}
_PUBLISHED_COLOURS = ("#000000", "#777777", "#56B4E9")
_STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "axes.axisbelow": True,
    "figure.facecolor": "white",
    "svg.hashsalt": "bls",  # of the ids in the file, which are random without it
}


@dataclass(frozen=True)
class _Label:
    """A name for what ends at a point."""

    text: str
    x: float
    y: float
    colour: Any
    weight: str = "normal"


def check_installed(*packages: str, extra: str) -> None:
    """Look for the packages of an extra, before hours of work and not after.

    Raises:
        ValueError: one is missing.
    """
    for name in packages:
        if importlib.util.find_spec(name) is None:
            raise ValueError(f"the package {name} is not installed, expected it: pip install 'bls-codec[{extra}]'")


def plot_rate_distortion(
    curves: Sequence[Curve], *, ours: str, quality_label: str, title: str, image_format: str = "png"
) -> bytes:
    """Draw quality over bpp, as far as the curve named `ours` goes and a little further."""

    def draw(figure: "Figure") -> None:
        axes = figure.add_subplot()
        (our_curve,) = (curve for curve in curves if curve.codec == ours and not curve.is_published)
        right = 1.2 * our_curve.bpp[-1]
        labels = [_draw_curve(axes, curve, colour, ours=ours, right=right) for curve, colour in _coloured(curves, ours)]
        inside = [label.y for label in labels]
        bottom, top = min(our_curve.quality), max(*inside, *our_curve.quality)
        margin = 0.12 * (top - bottom) or 1.0  # a single point has no range
        axes.set(xlim=(0, right), ylim=(bottom - margin, top + 0.3 * margin))
        axes.set(xlabel="bits per pixel", ylabel=quality_label)
        axes.set_title(title, loc="left", fontsize=11)
        _name(axes, labels, inches=5.5)

    return _render(draw, size=(8.5, 5.5), image_format=image_format)


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
                for quality, colour in _by_quality(qualities):
                    chosen = [row for row in rows if row["quality"] == quality]
                    values = [[row[name] for row in chosen] for name in (f"rounded_{measure}", column)]
                    axes.scatter(*values, s=22, marker=marker, color=colour, alpha=0.75, linewidth=0)
            axes.set(xscale="log", yscale="log", xlabel=x_label, ylabel=y_label)
            _draw_identity(axes)
            _plain_numbers(axes)
            axes.set_title(title, loc="left", fontsize=11)
        first, _, last = figure.axes
        _legend(first, [(f"quality {quality}", "o", colour) for quality, colour in _by_quality(qualities)])
        _legend(last, [(coder, marker, "#555555") for coder, marker in zip(coders, markers, strict=False)])

    return _render(draw, size=(13.5, 4.8), image_format=image_format)


def plot_training_curve(table: pa.Table, *, image_format: str = "png") -> bytes:
    """Draw the course of a training, a line per quality: columns quality, step, loss, estimated_bpp, psnr_db."""
    rows = table.to_pylist()
    qualities = sorted({row["quality"] for row in rows})
    panels = (("loss", "loss"), ("estimated_bpp", "estimated bits per pixel"), ("psnr_db", "PSNR in dB"))

    def draw(figure: "Figure") -> None:
        for axes, (column, label) in zip(figure.subplots(3, 1, sharex=True), panels, strict=True):
            labels = []
            for quality, colour in _by_quality(qualities):
                chosen = sorted((row["step"], row[column]) for row in rows if row["quality"] == quality)
                steps, values = zip(*chosen, strict=True)
                marker = "o" if len(steps) == 1 else ""
                axes.plot(steps, values, color=colour, linewidth=1.4, marker=marker)
                labels.append(_Label(f"quality {quality}", steps[-1], values[-1], colour))
            axes.set_ylabel(label)
            axes.set_xlim(0, max(row["step"] for row in rows))
            _focus(axes, [row[column] for row in rows])
            _name(axes, labels, inches=3)
        figure.axes[-1].set_xlabel("optimiser step")

    return _render(draw, size=(8, 9), image_format=image_format)


def _render(draw: Callable[["Figure"], None], *, size: tuple[float, float], image_format: str) -> bytes:
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    file = io.BytesIO()
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=size, dpi=DPI, layout="constrained")
        figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)  # type: ignore[union-attr, call-arg]
        FigureCanvasAgg(figure)
        draw(figure)
        # Without a date, equal pictures give equal files.
        figure.savefig(file, format=image_format, metadata={"Date": None} if image_format == "svg" else {})
    return file.getvalue()


def _coloured(curves: Sequence[Curve], ours: str) -> list[tuple[Curve, str]]:
    published = [curve.codec for curve in curves if curve.is_published]
    coloured = []
    for curve in curves:
        if curve.is_published:
            colour = _PUBLISHED_COLOURS[published.index(curve.codec) % len(_PUBLISHED_COLOURS)]
        elif curve.codec == ours:
            colour = OUR_COLOUR
        else:
            families = (colour for name, colour in _FAMILY_COLOURS.items() if curve.codec.startswith(name))
            colour = next(families, OUR_COLOUR)
        coloured.append((curve, colour))
    return coloured


def _draw_curve(axes: "Axes", curve: Curve, colour: str, *, ours: str, right: float) -> _Label:
    """Draw a curve; return its name for the place where it ends or leaves at the right."""
    is_ours = curve.codec == ours and not curve.is_published
    style = (
        ":" if curve.is_published else "--" if "420" in curve.codec or (not is_ours and colour == OUR_COLOUR) else "-"
    )
    axes.plot(
        curve.bpp,
        curve.quality,
        style,
        color=colour,
        linewidth=2.6 if is_ours else 1.5,
        marker="" if curve.is_published else "o",
        markersize=6 if is_ours else 3.5,
        zorder=3 if is_ours else 2,
    )
    x = min(curve.bpp[-1], right)
    y = float(np.interp(x, curve.bpp, curve.quality))
    return _Label(curve.label, x, y, colour, "bold" if is_ours else "normal")


def _name(axes: "Axes", labels: Sequence[_Label], *, inches: float) -> None:
    """Write names beside the right edge of axes `inches` high, at the heights of their ends but clear of each other."""
    low, high = axes.get_ylim()
    heights = [(label.y - low) / (high - low) for label in labels]
    leader = {"arrowstyle": "-", "linewidth": 0.6, "shrinkA": 1, "shrinkB": 2, "relpos": (0, 0.5)}
    for label, height in zip(labels, _spread(heights, gap=0.2 / inches), strict=True):
        axes.annotate(
            label.text,
            (label.x, label.y),
            (1.04, height),
            textcoords="axes fraction",
            color=label.colour,
            fontweight=label.weight,
            fontsize=9,
            va="center",
            annotation_clip=False,
            arrowprops=leader | {"color": label.colour},
        )


def _spread(heights: Sequence[float], *, gap: float) -> list[float]:
    """Move heights apart until neighbours are `gap` from each other."""
    order = sorted(range(len(heights)), key=heights.__getitem__)
    moved = list(heights)
    for _ in range(200):
        for lower, upper in pairwise(order):
            overlap = gap - (moved[upper] - moved[lower])
            if overlap > 0:
                moved[lower] -= overlap / 2
                moved[upper] += overlap / 2
    return moved


def _by_quality(qualities: Sequence[int]) -> list[tuple[int, Any]]:
    """Give each quality its colour."""
    import matplotlib

    shades = np.linspace(0, 0.78, max(len(qualities), 2))
    return [
        (quality, matplotlib.colormaps["viridis"](shade)) for quality, shade in zip(qualities, shades, strict=False)
    ]


def _focus(axes: "Axes", values: Sequence[float]) -> None:
    """Cut off the first steps of a training, which lie far from all others and would flatten what comes after."""
    low, high = np.quantile(values, (0.005, 0.995))
    margin = 0.08 * (high - low) or 0.1
    axes.set_ylim(low - margin, high + margin)


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
