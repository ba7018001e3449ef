"""How well uniform noise stands for rounding, in each model of a bundle (Ballé et al., ICLR 2017, figure 4).

python jobs/check_relaxation.py --input photos/ --output relaxation/ --bundle my-bundle
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from tyro.conf import OmitArgPrefixes

from bls.entropy.coders import CODERS
from bls.pixels import Pixels
from jobs.options import BundleOption, InputOptions, OutputFolder, check_at_least, parse
from pipeline import images
from pipeline.console.exits import ExitCode, UsageError, usage
from pipeline.console.printing import say, shown
from pipeline.console.progress import ProgressReport
from pipeline.console.streams import write_line
from pipeline.evaluate.relaxation import RelaxationCheck, markdown
from pipeline.evaluate.relaxation_plot import plot_relaxation
from pipeline.extras import check_installed
from pipeline.ledger.output import Output
from pipeline.ledger.schema import RELAXATION, to_parquet
from pipeline.ledger.summary import Summary, Tally
from pipeline.ledger.written import check_replaceable, write_results
from pipeline.provenance import provenance
from pipeline.sources.opening import check_apart, no_images
from pipeline.sources.reference import ImageReference, Source
from pipeline.status import Status
from pipeline.storage.opening import open_folder
from pipeline.work.bundles import load_bundle
from pipeline.work.codec import configure_process
from pipeline.work.stages import Item

RESULTS = ("relaxation.parquet", "relaxation.png", "relaxation.svg", "README.md")


@dataclass(frozen=True)
class CheckRelaxation:
    """Compare noise with rounding over a folder of images, in this process: a few hundred images are enough.

    Writes a row per image and quality (relaxation.parquet), a picture and the numbers (README.md). Exit codes: 0 all
    done, 1 failed, 2 wrong usage, 3 done, but some images could not be read.
    """

    images: OmitArgPrefixes[InputOptions]
    output: OutputFolder
    bundle: BundleOption = None
    num_threads: int = 1
    """Threads of the transforms."""
    seed: int = 0
    """Seed of the noise."""

    def __post_init__(self) -> None:
        check_at_least(1, num_threads=self.num_threads)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job from the command line; return its exit code."""
    config = parse(CheckRelaxation, arguments)
    try:
        return check_relaxation(config)
    except (UsageError, OSError) as error:
        say(f"error: {error}")
        return ExitCode.WRONG_USAGE if isinstance(error, UsageError) else ExitCode.FAILED


def check_relaxation(config: CheckRelaxation) -> ExitCode:
    """Fit the densities to all images, then measure each; write and print the results."""
    configure_process(config.num_threads)
    made = provenance()
    with usage():
        check_installed("matplotlib", extra="evaluate", what="pictures")
        bundle = load_bundle(config.bundle)
        check_apart(config.output, config.images.input)
        check_replaceable(open_folder(config.output), RESULTS)
        source = config.images.open()
        references = list(source.references())
        if not references:
            raise no_images(source)
    checks = [RelaxationCheck(bundle, quality, seed=config.seed) for quality in bundle.whole_qualities]
    good, rows, bad = [], [], []
    for item, x in _images(config, source, references, "analysed"):
        if x is None:
            bad.append(item.row)
            continue
        good.append(item.reference)
        for check in checks:
            check.fit(x)
    for item, x in _images(config, source, good, "measured"):
        rows += [item.row | check.measure(x) for check in checks if x is not None]
    _write(config, rows, bad, {"bundle": bundle.fingerprint.hex(), **made})
    return ExitCode.DONE_WITH_QUARANTINED if bad else ExitCode.DONE


@dataclass
class _Image(Item):
    reference: ImageReference


def _images(
    config: CheckRelaxation, source: Source, references: Sequence[ImageReference], verb: str
) -> Iterator[tuple[_Image, Pixels | None]]:
    """Read images one by one: None where that fails, with the reason in the row."""
    tally = Tally()
    with ProgressReport(verb, num_images=len(references), tally=tally) as progress:
        for position, reference in enumerate(references):
            item, x = _Image(position, {"key": reference.key, "status": Status.OK}, reference), None
            with item.stage():
                x = images.decode(source.read(reference), max_pixels=config.images.max_pixels).pixels
            item.fit(RELAXATION)
            yield item, x
            tally.add(Summary(num_images=1, quarantined={} if item.ok else {item.row["status"]: 1}))
            progress.show()


def _write(
    config: CheckRelaxation, rows: list[dict[str, Any]], bad: list[dict[str, Any]], made: dict[str, Any]
) -> None:
    folder = open_folder(config.output)
    data = to_parquet([*rows, *bad], RELAXATION, metadata={"job": "check_relaxation", "provenance": made})
    files = {"relaxation.parquet": data}
    for row in bad:
        say(f"left out {row['key']}: {row['error_message']}")
    if not rows:
        write_results(folder, files)
        return
    table = pa.Table.from_pylist(rows, schema=RELAXATION)
    for image_format in ("png", "svg"):
        files[f"relaxation.{image_format}"] = plot_relaxation(table, coders=CODERS, image_format=image_format)
    name = str(open_folder(config.images.input)).rstrip("/").rpartition("/")[2]
    text = markdown(table, name=name, provenance=made)
    write_results(folder, {**files, "README.md": text.encode()})
    write_line("\n".join(line for line in text.splitlines() if line.startswith("|")), sys.stdout)
    write_line(f"\n{shown(Output(config.output))}/README.md", sys.stdout)


if __name__ == "__main__":
    sys.exit(main())
