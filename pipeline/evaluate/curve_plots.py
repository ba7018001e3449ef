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
_FAMILY_COLOURS = {"jpeg-": "#D55E00", "jpeg2000": "#E69F00", "webp": "#009E73", "avif": "#CC79A7"}
_PUBLISHED_COLOURS = ("#000000", "#777777", "#56B4E9")


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
    return Label(curve.label, x, y, colour, "bold" if is_ours else "normal")
