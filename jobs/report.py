"""Write a report on a compress job: one HTML file with pictures, charts and numbers."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

from jobs.options import BundleOption, CompressedFolder, check_at_least, parse
from pipeline.baselines import missing
from pipeline.console.exits import ExitCode, UsageError, exit_code, usage
from pipeline.console.printing import print_table, say
from pipeline.console.text import num_bytes_text
from pipeline.extras import check_installed
from pipeline.images import ImageError
from pipeline.measures import MEASURES
from pipeline.read.dataset import CompressedDataset
from pipeline.read.images import ImageReader, reading_config
from pipeline.report.contact_sheet import MAX_IMAGES, contact_sheet
from pipeline.report.equal_quality import CODECS, Target, compare
from pipeline.report.originals import MAX_SECONDS, Originals, Pairs
from pipeline.report.page import Comparison, Shown, is_report, render
from pipeline.report.pictures import draw
from pipeline.report.run import Row, RunReport, gather
from pipeline.sources.opening import check_apart
from pipeline.status import Status
from pipeline.storage.opening import open_folder
from pipeline.storage.secrets import redact
from pipeline.storage.uris import absolute
from pipeline.work.codec import configure_process

_JPEG = ("JPEG", "MPO")
_MAX_COMPARED_PIXELS = 2**24  # AVIF takes minutes for larger images


@dataclass(frozen=True)
class Report:
    """Write a report on a compress job as one HTML file, which opens without a network.

    It shows what was done, a sample of the images as thumbnails, the best, median and worst images beside their
    originals, why images were quarantined, where the time went, and what JPEG, JPEG 2000, WebP, JPEG XL and AVIF would
    need for the same quality. You can report on a running job; the report covers what is committed so far. Exit codes:
    0 done, 1 failed, 2 wrong usage.
    """

    input: CompressedFolder
    output: str
    """HTML file to write: a path or URI."""
    bundle: BundleOption = None
    originals: str | None = None
    """Where the originals are now, if they have moved: any input that jobs/compress_dataset.py takes."""
    timeout: float = MAX_SECONDS
    """Seconds in which all originals must be read. Those that take longer are left out, and the page says so."""
    compare: int = 16
    """Number of images on which other codecs are measured at equal quality; 0 leaves the comparison out."""
    seed: int = 0
    """Seed of the samples: the same seed draws the same images."""
    num_threads: int = os.cpu_count() or 1
    """Threads to use."""
    overwrite: bool = False
    """Replace a file that is there."""

    def __post_init__(self) -> None:
        check_at_least(0, compare=self.compare, seed=self.seed, timeout=self.timeout)
        check_at_least(1, num_threads=self.num_threads)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job from the command line; return its exit code."""
    config = parse(Report, arguments)
    return exit_code(lambda: write_report(config))


def write_report(config: Report) -> ExitCode:
    """Gather, measure, draw, and write the file."""
    above, _, name = absolute(config.output).rpartition("/")
    with usage():
        check_installed("jinja2", "vl_convert", extra="report", what="reports")
        folder = open_folder(above or "/")
        if not config.overwrite and folder.holds(name):
            raise ValueError(f"{redact(config.output)} is there already: use another --output, or --overwrite")
        check_apart(config.output, config.input, *([] if config.originals is None else [config.originals]))
        if folder.holds(name) and not is_report(folder.read_range(name, 0, 4096)):
            raise ValueError(f"{redact(config.output)} is not a report, and is not replaced: use another --output")
        dataset = CompressedDataset(config.input)
        reading = reading_config(dataset, columns=["key", "image", "icc_profile"], bundle=config.bundle)
    if state := dataset.state():
        say(state)
    configure_process(config.num_threads)
    run = gather(dataset, seed=config.seed)
    compared = _compared(run, config.compare)
    originals = Originals(dataset, uri=config.originals, seconds=config.timeout)
    say(f"reading originals, for {config.timeout:g} s at most")
    originals.fetch([*_extremes(run), *compared])
    page = render(
        run,
        _pictures(run, Pairs(dataset, ImageReader(reading), originals)),
        _comparison(compared, originals, config) if config.compare and run.num_good else None,
        title=str(dataset.output),
        sheet=contact_sheet(dataset, reading.codec.load(), run.sample[:MAX_IMAGES]),
    ).encode()
    if config.overwrite:
        folder.write(name, page)
    elif not folder.create(name, page):
        raise UsageError(f"{redact(config.output)} was written by another run meanwhile: use --overwrite")
    missing = [("originals", f"{n} could not be read: see the page")] if (n := originals.num_missing) else []
    print_table([("report", f"{redact(config.output)}, {num_bytes_text(len(page))}"), *missing])
    return ExitCode.DONE


def _places(run: RunReport) -> list[tuple[str, str, Row]]:
    """Return measure, place and row of the images that are shown."""
    ranks = {"best": run.best, "median": run.median, "worst": run.worst}
    return [(measure, place, rows[measure]) for measure in MEASURES for place, rows in ranks.items() if measure in rows]


def _extremes(run: RunReport) -> list[Row]:
    return [row for _, _, row in _places(run)]


def _pictures(run: RunReport, pairs: Pairs) -> list[Shown]:
    """Draw every image once, however many places it has."""
    rows = {row["key"]: row for row in _extremes(run)}
    drawn = {key: draw(row, pairs.pair(row)) for key, row in rows.items()}
    return [
        Shown(measure, [(place, drawn[row["key"]]) for each, place, row in _places(run) if each == measure])
        for measure in MEASURES
        if measure in run.best
    ]


def _compared(run: RunReport, number: int) -> list[Row]:
    """Return the images on which other codecs are measured: the first of the sample, which is in random order."""
    coded = [row for row in run.sample if row["status"] == Status.OK]
    small = [row for row in coded if row["width"] * row["height"] <= _MAX_COMPARED_PIXELS]
    return small[:number]


def _comparison(rows: Sequence[Row], originals: Originals, config: Report) -> Comparison:
    codecs = [codec for codec in CODECS if not missing(codec)]
    for codec in CODECS.keys() - codecs:
        say(f"left out of the comparison: {missing(codec)}")
    say(f"coding {len(rows)} images with {', '.join(CODECS[codec] for codec in codecs)} at equal quality")
    comparison = Comparison([], 0, 0, 0, config.seed)
    for number, row in enumerate(rows, start=1):
        say(f"image {number} of {len(rows)}: {row['key']}, {row['width'] * row['height'] / 1e6:.1f} megapixels")
        try:
            x = originals.read(row["key"])
            if x.shape[:2] != (row["height"], row["width"]):
                raise ImageError(Status.UNREADABLE, "another image is in its place")
        except ImageError:
            comparison = replace(comparison, num_unreadable=comparison.num_unreadable + 1)
            continue
        target = Target(x, row["num_bytes"], row["psnr_db"], row["ms_ssim"])
        comparison = replace(
            comparison,
            needs=[*comparison.needs, *compare([target], codecs=codecs, num_threads=config.num_threads)],
            num_images=comparison.num_images + 1,
            num_jpeg=comparison.num_jpeg + (row["source_format"] in _JPEG),
        )
    return comparison


if __name__ == "__main__":
    sys.exit(main())
