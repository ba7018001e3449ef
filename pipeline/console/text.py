"""Numbers and reasons as text for people."""

from collections.abc import Iterable, Mapping, Sequence

from pipeline.ledger.summary import Mean, Summary


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table in Markdown."""
    return [f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows)]


def reasons_text(counts: Mapping[str, int]) -> str:
    """Say how often each reason came up, the most frequent first."""
    return ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items(), key=lambda item: -item[1]))


def skipped_text(skipped: Mapping[str, int]) -> str:
    """Say how much of the input was not taken for an image, and what it was instead."""
    reasons = sorted(skipped.items(), key=lambda item: -item[1])
    named = ", ".join(f"{reason} {count}" for reason, count in reasons[:5])
    more = ", ..." if len(reasons) > 5 else ""
    return f"skipped {sum(skipped.values())} files or samples that are not images: {named}{more}"


def num_bytes_text(num_bytes: int) -> str:
    """Return a size in the unit that suits it."""
    value, units = float(num_bytes), iter(("B", "kB", "MB", "GB", "TB"))
    unit = next(units)
    while value >= 1000 and unit != "TB":
        value, unit = value / 1000, next(units)
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.3g} {unit}"


def counted(count: float, noun: str) -> str:
    """Return a number with its noun, in the plural where it is not 1."""
    return f"{count:g} {noun}{'s' * (count != 1)}"


def size_rows(name_in: str, name_out: str, summary: Summary) -> list[tuple[str, str]]:
    """Return the rows of a table with the bytes before and after; quarantined images have no bytes after."""
    others = summary.num_bytes_quarantined
    left_out = f"; {num_bytes_text(others)} more are of quarantined images" if others else ""
    return [
        (name_in, num_bytes_text(summary.num_bytes_in) + left_out),
        (name_out, num_bytes_text(summary.num_bytes_out) + _ratio_text(summary.num_bytes_out, summary.num_bytes_in)),
    ]


def bitstreams_row(summary: Summary) -> list[tuple[str, str]]:
    """Return the row that tells how much of what is stored are bitstreams; none where nothing is beside them."""
    if not (others := summary.num_bytes_out - summary.num_bytes_images):
        return []
    more = f"{num_bytes_text(others)} more are EXIF, ICC, alpha and carried data"
    return [("bitstreams", f"{num_bytes_text(summary.num_bytes_bitstreams)}; {more}")]


def grown_row(summary: Summary, *, keeps_smaller: bool) -> list[tuple[str, str]]:
    """Return the row that tells how many images take more than their source; none where there are none.

    Images with a target of size may do so even where smaller originals are kept.
    """
    if not summary.num_grown:
        return []
    images = "1 image takes" if summary.num_grown == 1 else f"{summary.num_grown} images take"
    saved = "" if keeps_smaller else ", which --keep-smaller from the start would save"
    return [("larger", f"{images} more bytes than the source, {num_bytes_text(summary.num_bytes_grown)} in all{saved}")]


def kept_row(summary: Summary) -> list[tuple[str, str]]:
    """Return the row that tells how many originals were kept; none where there are none."""
    if not summary.num_kept:
        return []
    images = "1 original is" if summary.num_kept == 1 else f"{summary.num_kept} originals are"
    return [("kept", f"{images} stored, {num_bytes_text(summary.num_bytes_kept)}: bitstreams would be larger")]


def _ratio_text(num_bytes: int, of: int) -> str:
    if not of:
        return ""
    return f", {100 * num_bytes / of:.1f} % of it" if num_bytes < 2 * of else f", {num_bytes / of:.1f} times as much"


def counts_text(verb: str, total: Summary, *, num_left: int) -> str:
    """Say what became of the images, and how many are left."""
    left = f", {num_left} left" if num_left else ""
    kept = f", {total.num_kept} kept" if total.num_kept else ""
    return f"{total.num_coded} {verb}{kept}, {total.num_quarantined} quarantined{left}"


def mean_text(mean: Mean, spec: str, unit: str = "") -> str:
    """Return a mean over images, and over how many."""
    if mean.value is None:
        return "none"
    return f"{mean.value:{spec}}{unit and ' '}{unit}, mean of {mean.count} images"


def rate_text(summary: Summary) -> str:
    """Return all bits over all pixels, and beside it the mean of the images' own rates."""
    if summary.total_bpp is None or summary.bpp.value is None:
        return "none"
    return f"{summary.total_bpp:.3f} (all bits over all pixels; mean of images {summary.bpp.value:.3f})"


def need_text(percent: float, spec: str = ".0f") -> str:
    """Say in words how much more ours needs than another codec for equal quality; below 0 it needs less."""
    return f"{abs(percent):{spec}} % {'fewer' if percent < 0 else 'more'}"


def duration_text(seconds: float) -> str:
    """Return a time in the unit that suits it."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, hours = seconds / 60, seconds / 3600
    return f"{minutes:.1f} min" if minutes < 60 else f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"


def speed_text(summary: Summary, seconds: float, *, seconds_to_start: float, num_left: int) -> str:
    """Return images and megapixels per second, from when the first worker was ready; `seconds` are those of all."""
    if not summary.num_images:
        return "no image was finished" if num_left else "nothing was left to do"
    seconds = max(seconds - seconds_to_start, 1e-3)
    rates = f"{summary.num_images / seconds:.1f} images/s, {summary.num_pixels / 1e6 / seconds:.2f} MP/s"
    start = f", after {seconds_to_start:.0f} s in which Ray and the workers started" if seconds_to_start >= 1 else ""
    return f"{summary.num_images} images in {seconds:.0f} s: {rates}{start}"
