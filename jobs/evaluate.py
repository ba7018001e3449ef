"""Rate and distortion of a bundle over a folder of images, beside other codecs on the same images.

python jobs/evaluate.py --input photos/ --output evaluation/ --bundle my-bundle
"""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from tyro.conf import OmitArgPrefixes

from bls.bundle import Bundle
from bls.codec import Codec
from bls.entropy.coders import CODERS
from bls.ladder import quality_text
from bls.refinement.descent import check_effort
from jobs.options import BundleOption, ClusterOptions, InputOptions, OutputFolder, RerunOptions, parse
from pipeline import baselines
from pipeline.cluster.cluster import Cluster
from pipeline.cluster.run import Result, Work, run_to_end
from pipeline.console import events
from pipeline.console.exits import ExitCode, exit_code, usage
from pipeline.console.printing import print_quarantined, print_table, say, shown
from pipeline.console.text import skipped_text
from pipeline.evaluate import panels
from pipeline.evaluate.curves import Curve, Point, read_reference
from pipeline.evaluate.panel_pages import PanelWork
from pipeline.evaluate.result_page import FILES, bd_rate_text, files
from pipeline.evaluate.results import Report
from pipeline.evaluate.ssimulacra2 import INSTALL, package_version
from pipeline.evaluate.worker import EvaluationConfig, ShardEvaluator, ladders, read_rows
from pipeline.extras import check_installed
from pipeline.ledger.manifest import Manifest
from pipeline.ledger.output import Output
from pipeline.ledger.plan import freeze_plan, planned_shards
from pipeline.ledger.schema import EVALUATION, SCHEMA_VERSION, to_parquet
from pipeline.ledger.written import check_replaceable, write_results
from pipeline.provenance import code_version, provenance
from pipeline.sources.opening import check_apart
from pipeline.sources.reference import Source
from pipeline.storage.opening import open_folder
from pipeline.storage.uris import absolute
from pipeline.work.bundles import load_bundle
from pipeline.work.codec import configure_process

JOB = "evaluate"
RESULTS = ("images.parquet", *FILES)


@dataclass(frozen=True)
class Evaluate:
    """Measure rate and distortion of a bundle over a folder of images, beside other codecs, on Ray.

    Writes a row per image and setting (images.parquet), means (summary.csv), BD-rates (bd_rate.csv), plots and all of
    it to read (README.md). Give it images that were never lossily coded: others favour the codec they come from. To go
    on with a run that was stopped, give the same command again: finished work is kept in OUTPUT/shards. Exit codes:
    0 all done, 1 failed, 2 wrong usage, 3 done, but some images could not be read or coded.
    """

    images: OmitArgPrefixes[InputOptions]
    output: OutputFolder
    bundle: BundleOption = None
    qualities: tuple[float, ...] = ()
    """Qualities to measure, any numbers from 1 to 8; by default the whole numbers that the bundle serves."""
    effort: tuple[int, ...] = (0,)
    """Efforts of the encoder, of 0 to 3: each is a curve of its own. The latents are refined for the mixed coder, and
    each coder codes these."""
    codecs: tuple[str, ...] | None = None
    """Codecs to compare with. Default: all that this machine has, and on panels one of each format."""
    panels: bool = False
    """Write pictures to compare by eye instead: each image as it is, by ours and by the others at equal size, whole
    and enlarged, with the numbers. At --qualities, by default 1, 2 and 4; in this process, for a few images."""
    crop: tuple[int, int] | None = None
    """Left and top of the enlarged region (--panels only). Default: the most detailed region of each image."""
    reference: str | None = None
    """CSV file of published curves on these images, a path or URI: codec, bpp, psnr_rgb_db, ms_ssim. For Kodak:
    benchmarks/reference/kodak.csv."""
    curves: tuple[str, ...] = ("balle2017-retrained-mse", "jpeg-420", "bpg-444", "av1")
    """Codecs of the reference to compare with. All codecs are also compared with the first."""
    cluster: OmitArgPrefixes[ClusterOptions] = field(default_factory=ClusterOptions)
    rerun: OmitArgPrefixes[RerunOptions] = field(default_factory=RerunOptions)

    def __post_init__(self) -> None:
        baselines.check_codecs(self.compared)
        for effort in self.effort:
            check_effort(effort)
        if self.crop is not None and not self.panels:
            raise ValueError("--crop is given without --panels: it is the region that panels enlarge")
        if self.reference is not None and self.panels:
            raise ValueError("--reference is for curves, which --panels does not draw: leave out one of the two")

    @property
    def efforts(self) -> tuple[int, ...]:
        """Return the efforts in ascending order, each once."""
        return tuple(sorted(set(self.effort)))

    @property
    def compared(self) -> tuple[str, ...]:
        """Return the codecs that are compared with."""
        if self.codecs is not None:
            return self.codecs
        return tuple(name for name in self._by_default if not baselines.missing(name))

    @property
    def left_out(self) -> list[str]:
        """Return why codecs are not compared with that would be by default."""
        return (
            [] if self.codecs is not None else [text for name in self._by_default if (text := baselines.missing(name))]
        )

    @property
    def _by_default(self) -> tuple[str, ...]:
        return panels.CODECS if self.panels else tuple(baselines.BASELINES)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job from the command line; return its exit code."""
    config = parse(Evaluate, arguments)
    with events.for_machines(config.rerun.log_json):
        for reason in config.left_out:
            say(f"left out of the comparison: {reason}")
        if package_version() is None:
            say(f"SSIMULACRA2 is not measured, ssimulacra2 is required for it: {INSTALL}")
        return exit_code(lambda: (write_panels if config.panels else evaluate)(config))


def evaluate(config: Evaluate) -> ExitCode:
    """Measure what is not measured yet, write and print the results."""
    made = provenance()  # of the code that measures, not of what it has become when hours later it reports
    with Cluster(job=JOB, **asdict(config.cluster)) as cluster:
        with usage():
            check_installed("matplotlib", "bjontegaard", extra="evaluate", what="an evaluation")
            published = _read_reference(config)
            bundle = load_bundle(config.bundle)
            work = _prepare(config, bundle, cluster)
        result = run_to_end(
            work, cluster, max_failures=config.rerun.max_failures, retry_quarantined=config.rerun.retry_quarantined
        )
    if result.is_stopped:
        return result.exit_code
    summary = Report.of_rows(
        read_rows(work.output),
        name=_name(config),
        published=published,
        provenance={"bundle": bundle.fingerprint.hex(), **made},
    )
    with usage():
        _write(config, summary)
    _print_result(config, summary, result)
    return result.exit_code


def _read_reference(config: Evaluate) -> list[Point]:
    if config.reference is None:
        return []
    folder, _, name = absolute(config.reference).rpartition("/")
    try:
        data = open_folder(folder).read(name)
    except FileNotFoundError:
        raise ValueError(f"--reference {config.reference} is not there: expected a CSV file") from None
    except OSError as error:
        raise ValueError(f"--reference {config.reference} cannot be read: {error}") from error
    try:
        return read_reference(data, config.curves)
    except ValueError as error:
        raise ValueError(f"--reference {config.reference}: {error}") from error


def _prepare(config: Evaluate, bundle: Bundle, cluster: Cluster) -> Work:
    qualities = _qualities(config, bundle)
    source = config.images.open()
    check_apart(config.output, config.images.input)
    check_replaceable(open_folder(config.output), RESULTS)
    output = Output(f"{absolute(config.output).rstrip('/')}/shards")
    output.check_free()
    if config.rerun.overwrite:
        output.clear(JOB)
    manifest = freeze_plan(
        output,
        source,
        begun=Manifest(job=JOB, settings=_settings(config, source, bundle, qualities)),
        shard_size=1,  # an image takes seconds: dozens of codings, decodings and measures
        num_workers=lambda: cluster.connect().num_workers,
    )
    if skipped := manifest.plans[0].skipped:
        say(skipped_text(skipped))
    worker_config = EvaluationConfig(
        input=absolute(config.images.input),
        output=str(output),
        qualities=qualities,
        efforts=config.efforts,
        codecs=config.compared,
        bundle=config.bundle and absolute(config.bundle),
        bundle_fingerprint=bundle.fingerprint.hex(),
        max_pixels=config.images.max_pixels,
        columns=config.images.columns,
        device=config.cluster.device,
        num_threads=config.cluster.cpus_per_worker,
        patience=config.images.patience,
    )
    return Work(
        verb="evaluated",
        output=output,
        num_images=manifest.num_images,
        shards=lambda done: planned_shards(output, manifest, skip=done),
        make_worker=partial(ShardEvaluator, worker_config),
    )


def _qualities(config: Evaluate, bundle: Bundle) -> tuple[float, ...]:
    for quality in config.qualities:
        bundle.network(quality)
    return config.qualities or bundle.whole_qualities


def write_panels(config: Evaluate) -> ExitCode:
    """Write the panels of all images, then the page that shows them."""
    made = provenance()
    configure_process(config.cluster.cpus_per_worker)
    with usage():
        check_apart(config.output, config.images.input)
        bundle = load_bundle(config.bundle)
        qualities = _qualities(config, bundle)
        if not config.qualities:
            qualities = tuple(quality for quality in qualities if quality in panels.QUALITIES) or qualities
        work = PanelWork(
            source=config.images.open(),
            codec=Codec(bundle, device=config.cluster.device, max_pixels=config.images.max_pixels),
            qualities=qualities,
            efforts=config.efforts,
            others=config.compared,
            corner=config.crop,
            max_pixels=config.images.max_pixels,
            max_failures=config.rerun.max_failures,
        )
        num_panels, failures = work.write(
            open_folder(config.output), name=_name(config), provenance={"bundle": bundle.fingerprint.hex(), **made}
        )
    print_table(
        [
            ("panels", f"{num_panels} drawn, {len(failures)} images left out"),
            ("results", shown(Output(config.output)) + "/README.md"),
        ]
    )
    return ExitCode.DONE_WITH_QUARANTINED if failures else ExitCode.DONE


def _name(config: Evaluate) -> str:
    return str(open_folder(config.images.input)).rstrip("/").rpartition("/")[2]


def _settings(config: Evaluate, source: Source, bundle: Bundle, qualities: Sequence[float]) -> dict[str, Any]:
    return {
        "input": str(source),
        "image_column": config.images.image_column,
        "key_column": config.images.key_column,
        "bundle_fingerprint": bundle.fingerprint.hex(),
        "coders": list(CODERS),
        "qualities": list(qualities),
        "efforts": list(config.efforts),
        "codecs": ladders(config.compared),
        "libraries": {**baselines.library_versions(), "ssimulacra2": package_version()},
        "max_pixels": config.images.max_pixels,
        "schema_version": SCHEMA_VERSION,
        "code_version": code_version(),
    }


def _write(config: Evaluate, summary: Report) -> None:
    folder = open_folder(config.output)
    metadata = {"job": JOB, "provenance": dict(summary.provenance)}
    table = to_parquet(summary.table.to_pylist(), EVALUATION, metadata=metadata)
    write_results(folder, {"images.parquet": table, **files(summary)})


def _print_result(config: Evaluate, summary: Report, result: Result) -> None:
    total = result.total
    rows = [("images", f"{total.num_images - total.num_quarantined} measured, {total.num_quarantined} left out")]
    for point in summary.our_points:
        ms_ssim = "" if point["ms_ssim"] is None else f", MS-SSIM {point['ms_ssim']:.4f}"
        name = f"quality {quality_text(point['quality'])}, effort {point['effort']}"
        rows.append((name, f"{point['bpp']:.3f} bpp, {point['psnr_db']:.2f} dB{ms_ssim}"))
    for row in summary.bd_rates():
        if row["measure"] == "psnr_db":
            label = Curve(row["codec"], (), (), row["is_published"], row["other_effort"]).label
            ours = f"effort {row['effort']} needs"
            needs = f"for equal PSNR (BD-rate) {ours}" if row["bd_rate_percent"] is not None else "BD-rate"
            rows.append((f"than {label}", f"{needs} {bd_rate_text(row)}"))
    rows.append(("results", shown(Output(config.output)) + "/README.md"))
    print_table(rows)
    print_quarantined(total)


if __name__ == "__main__":
    sys.exit(main())
