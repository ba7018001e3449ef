"""Pictures of measurements, as PNG or SVG: rate-distortion curves, the check of the relaxation, training curves.

matplotlib is imported when the first one is drawn: whoever only compresses never waits for it. Lines are named where
they end; colours (Okabe and Ito's, or viridis) stay apart for colour-blind readers.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_Quality = TypeVar("_Quality")
DPI = 150
_STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "axes.axisbelow": True,
    "figure.facecolor": "white",
    "svg.hashsalt": "bls",  # makes the ids in the file the same each time
}


@dataclass(frozen=True)
class Label:
    """A name, and the point at which its line ends."""

    text: str
    x: float
    y: float
    colour: Any
    weight: str = "normal"


def render(draw: Callable[["Figure"], None], *, size: tuple[float, float], image_format: str) -> bytes:
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


def draw_name(axes: "Axes", labels: Sequence[Label], *, inches: float) -> None:
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


def by_quality(qualities: Sequence[_Quality]) -> list[tuple[_Quality, Any]]:
    """Give each quality its colour."""
    import matplotlib

    shades = np.linspace(0, 0.78, max(len(qualities), 2))
    return [
        (quality, matplotlib.colormaps["viridis"](shade)) for quality, shade in zip(qualities, shades, strict=False)
    ]
