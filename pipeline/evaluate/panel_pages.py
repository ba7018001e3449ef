"""Panels as pictures, and the page that lists them."""

import html
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from bls.codec import Codec
from bls.ladder import quality_text
from bls.pixels import Pixels
from pipeline import images
from pipeline.baselines import BASELINES, library_versions
from pipeline.console.text import markdown_table
from pipeline.evaluate.coding import Row
from pipeline.evaluate.panels import CROP_SIDE, Decoded, Panel, make_panel
from pipeline.images import ImageError
from pipeline.ledger.written import check_replaceable, write_results
from pipeline.sources.reading import read_encoded
from pipeline.sources.reference import ImageReference, Source
from pipeline.storage.folder import Folder
from pipeline.storage.secrets import redact

_ENLARGED = 2
_CELL = _ENLARGED * CROP_SIDE  # width of one codec's column
_COLUMNS = 3
_GAP = 8
_FONT_SIZE = 14
_LINE = 18
_WHITE, _BLACK = 255, 0  # the same in grayscale and, three times, in RGB


@dataclass(frozen=True)
class PanelWork:
    """Panels of all images of a source; `efforts`, `others` and `corner` as `make_panel`."""

    source: Source
    codec: Codec
    qualities: Sequence[float]
    efforts: Sequence[int]
    others: Sequence[str]
    corner: tuple[int, int] | None
    max_pixels: int
    max_failures: int | None = None

    def write(self, folder: Folder, *, name: str, provenance: Mapping[str, Any]) -> tuple[int, dict[str, str]]:
        """Write a picture per image and quality, then the page; return their number, and why keys are left out.

        Raises:
            ValueError: somebody else's file is in the way, there are no images, one is too small for the corner, or
                more than `max_failures` are left out.
        """
        check_replaceable(folder, ["README.md"])
        sections: list[str] = []
        failures: dict[str, str] = {}
        num_panels = 0
        for number, reference in enumerate(self.source.references()):
            try:
                for panel in self._panels(reference):
                    file = panel.file_name(number)
                    write_results(folder, {file: draw(panel)})
                    sections += section(panel, file)
                    num_panels += 1
            except ImageError as error:
                failures[reference.key] = str(error)
                if self.max_failures is not None and len(failures) > self.max_failures:
                    raise ValueError(f"{len(failures)} images cannot be read, the last: {error}") from error
        if not num_panels:
            raise ValueError(f"{self.source} has no image that can be read ({len(failures)} cannot): give it some")
        text = page(sections, name=name, failures=failures, provenance=provenance)
        write_results(folder, {"README.md": text.encode()})
        return num_panels, failures

    def _panels(self, reference: ImageReference) -> Iterator[Panel]:
        x = images.decode(read_encoded(self.source, reference), max_pixels=self.max_pixels).pixels
        for quality in self.qualities:
            yield make_panel(
                x,
                key=reference.key,
                codec=self.codec,
                quality=quality,
                efforts=self.efforts,
                others=self.others,
                corner=self.corner,
            )


def draw(panel: Panel) -> bytes:
    """Return a panel as PNG: of original and codecs the whole picture, the region enlarged, and the numbers."""
    cells = [_cell(panel, panel.original, ["original", f"{panel.original.shape[1]}x{panel.original.shape[0]}", ""])]
    cells += [_cell(panel, decoded.pixels, caption(decoded)) for decoded in panel.decoded]
    width, height = cells[0].size
    rows = -(-len(cells) // _COLUMNS)
    size = (_COLUMNS * (width + _GAP) + _GAP, rows * (height + _GAP) + _GAP)
    sheet = Image.new("L" if panel.gray else "RGB", size, _colour(panel, _WHITE))
    for index, cell in enumerate(cells):
        row, column = divmod(index, _COLUMNS)
        sheet.paste(cell, (_GAP + column * (width + _GAP), _GAP + row * (height + _GAP)))
    file = io.BytesIO()
    sheet.save(file, "png", optimize=True)
    return file.getvalue()


def caption(decoded: Decoded) -> list[str]:
    """Return the lines under a codec's picture."""
    row = decoded.row
    return [_name(row), f"{row['bpp']:.3f} bpp, {_number(row, 'psnr_db', '.2f')} dB", _ms_ssim(row)]


def section(panel: Panel, file: str) -> list[str]:
    """Return the lines of a page that show a panel: its picture, by the name of its file, and its numbers."""
    rows, columns = panel.crop
    return [
        f"## {_text(panel.key)}, quality {quality_text(panel.quality)}",
        "",
        f"![original and codecs]({file})",
        "",
        *markdown_table(["codec", "bytes", "bpp", "against the first", "PSNR", "MS-SSIM", "SSIMULACRA2"], _rows(panel)),
        "",
        f"Enlarged: {columns.stop - columns.start}x{rows.stop - rows.start} pixels from column {columns.start} and row "
        f"{rows.start}.",
        "",
    ]


def page(sections: Sequence[str], *, name: str, failures: Mapping[str, str], provenance: Mapping[str, Any]) -> str:
    """Return the page of all panels as Markdown."""
    lines = [
        f"# Side by side: {_text(name)}",
        "",
        "Whole pictures are scaled to fit; the regions below them are enlarged "
        f"{_ENLARGED} times without interpolation. Every other codec runs at its lowest setting whose file is at least "
        "as large as our bitstream in the first row, so none is shown with fewer bits unless it has no larger setting. "
        "Ours at a higher effort has the highest quality whose bitstream is not larger than that one, if there is one.",
        "",
        *sections,
        *(f"Left out: {_text(key)}: {_text(reason)}\n" for key, reason in failures.items()),
        *(f"- {library}: {version}" for library, version in library_versions().items()),
        *(f"- {key}: {value}" for key, value in provenance.items() if value is not None),
    ]
    return "\n".join(lines) + "\n"


def _rows(panel: Panel) -> list[list[str]]:
    ours = panel.decoded[0].row["bpp"]
    return [
        [
            _name(row),
            str(row["num_bytes"]),
            f"{row['bpp']:.3f}",
            f"{100 * (row['bpp'] / ours - 1):+.1f} %",
            f"{_number(row, 'psnr_db', '.2f')} dB",
            _number(row, "ms_ssim", ".4f"),
            _number(row, "ssimulacra2", ".1f"),
        ]
        for row in (decoded.row for decoded in panel.decoded)
    ]


def _name(row: Row) -> str:
    setting = BASELINES[row["codec"]].setting if row["codec"] in BASELINES else "quality"
    effort = "" if row["effort"] is None else f", effort {row['effort']}"
    return f"{row['codec']}, {setting} {quality_text(row['quality'])}{effort}"


def _ms_ssim(row: Row) -> str:
    return f"MS-SSIM {_number(row, 'ms_ssim', '.4f')}"


def _number(row: Row, name: str, spec: str) -> str:
    return "-" if row[name] is None else f"{row[name]:{spec}}"


def _cell(panel: Panel, pixels: Pixels, lines: Sequence[str]) -> Image.Image:
    whole = Image.fromarray(pixels)
    whole.thumbnail((_CELL, _CELL), Image.Resampling.LANCZOS)
    crop = Image.fromarray(pixels[panel.crop])
    crop = crop.resize((_ENLARGED * crop.width, _ENLARGED * crop.height), Image.Resampling.NEAREST)
    height = whole.height + _GAP + crop.height + _LINE * len(lines)
    cell = Image.new(whole.mode, (_CELL, height), _colour(panel, _WHITE))
    cell.paste(whole, (0, 0))
    cell.paste(crop, (0, whole.height + _GAP))
    font = ImageFont.load_default(_FONT_SIZE)
    for index, line in enumerate(lines):
        at = (0, whole.height + _GAP + crop.height + _LINE * index)
        ImageDraw.Draw(cell).text(at, line, _colour(panel, _BLACK), font)
    return cell


def _colour(panel: Panel, level: int) -> int | tuple[int, int, int]:
    return level if panel.gray else (level, level, level)


def _text(value: str) -> str:
    """Return text of one line that means nothing to Markdown or HTML."""
    escaped = html.escape(redact(" ".join(value.split())))
    return "".join(f"&#{ord(letter)};" if letter in "`*_[]|\\" else letter for letter in escaped)
