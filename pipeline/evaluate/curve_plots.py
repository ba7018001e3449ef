"""Rate-distortion curves as pictures."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipeline.drawing import Label, draw_name, render
from pipeline.evaluate.curves import Curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
OUR_COLOUR = "#0072B2"
_FAMILY_COLOURS = {
    **{"jpeg-xl": "#8C510A", "jpeg-4": "#D55E00", "jpeg2000": "#E69F00"},
    **{"webp": "#009E73", "avif": "#CC79A7"},
}
_PUBLISHED_COLOURS = ("#000000", "#777777", "#56B4E9", "#AA9900", "#994455")
_DASHED = ("420", "-iq")
_EFFORT_MARKERS = ("o", "s", "^", "D")


def plot_rate_distortion(
    curves: Sequence[Curve], *, ours: str, quality_label: str, title: str, image_format: str = "png"
) -> bytes:
    """Draw quality over bpp, as far as the curves named `ours` go and a little further; they differ in effort."""

    def draw(figure: "Figure") -> None:
        axes = figure.add_subplot()
        ours_drawn = [curve for curve in curves if curve.codec == ours and not curve.is_published]
        right = 1.2 * max(curve.bpp[-1] for curve in ours_drawn)
        our_qualities = [quality for curve in ours_drawn for quality in curve.quality]
        labels = [_draw_curve(axes, curve, colour, ours=ours, right=right) for curve, colour in _coloured(curves, ours)]
        inside = [label.y for label in labels]
        bottom, top = min(our_qualities), max(*inside, *our_qualities)
        margin = 0.12 * (top - bottom) or 1.0  # a single point has no range
        axes.set(xlim=(0, right), ylim=(bottom - margin, top + 0.3 * margin))
        axes.set(xlabel="bits per pixel", ylabel=quality_label)
        axes.set_title(title, loc="left", fontsize=11)
        draw_name(axes, labels, inches=5.5)

    return render(draw, size=(8.5, 5.5), image_format=image_format)


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


def _draw_curve(axes: "Axes", curve: Curve, colour: str, *, ours: str, right: float) -> Label:
    """Draw a curve; return its name and the place where it ends or leaves at the right."""
    is_ours = curve.codec == ours and not curve.is_published
    is_dashed = any(mark in curve.codec for mark in _DASHED) or (not is_ours and colour == OUR_COLOUR)
    axes.plot(
        curve.bpp,
        curve.quality,
        ":" if curve.is_published else "--" if is_dashed else "-",
        color=colour,
        linewidth=2.6 if is_ours else 1.5,
        marker="" if curve.is_published else _EFFORT_MARKERS[curve.effort or 0],
        markersize=6 if is_ours else 3.5,
        zorder=3 if is_ours else 2,
    )
    x = min(curve.bpp[-1], right)
    y = float(np.interp(x, curve.bpp, curve.quality))
    return Label(curve.label, x, y, colour, "bold" if is_ours else "normal")
