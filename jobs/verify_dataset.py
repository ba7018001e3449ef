"""Verify a compressed dataset: every committed file, every bitstream, and the pixels if wanted."""

import random
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from functools import partial

from tyro.conf import OmitArgPrefixes

from jobs.options import BundleOption, ClusterOptions, CompressedFolder, parse, share_of
from pipeline.cluster.cluster import Cluster
from pipeline.cluster.pool import run_shards
from pipeline.cluster.scheduler import InterruptedWorkError
from pipeline.console import events
from pipeline.console.exits import ExitCode, exit_code, usage
from pipeline.console.printing import (
    job_command,
    print_commands,
    print_quarantined,
    print_table,
    say,
    shown,
    writing_command,
)
from pipeline.console.progress import ProgressReport
from pipeline.console.text import mean_text, num_bytes_text
from pipeline.ledger.damage import DamagedFileError
from pipeline.ledger.markers import Marker, marker_name
from pipeline.ledger.output import findings_name
from pipeline.ledger.plan import planned_shards
from pipeline.ledger.shard import Shard
from pipeline.ledger.summary import Tally
from pipeline.read.dataset import CompressedDataset
from pipeline.read.images import codec_of
from pipeline.sources.reference import Columns
from pipeline.storage.secrets import redact
from pipeline.storage.uris import absolute
from pipeline.verify.findings import Finding, Problem, counts, findings_table
from pipeline.verify.worker import ShardVerifier, VerificationConfig

JOB = "verify"


@dataclass(frozen=True)
class VerifyDataset:
    """Verify a compressed dataset, on Ray.

    Every committed file is read and compared with its commit marker (size and SHA-256) and with the plan (keys), and
    every bitstream is decoded to symbols. INPUT/verify/*.parquet gets a row for each problem; rows of earlier runs are
    deleted. Exit codes: 0 no problem was found, 1 problems were found, or the job failed, 2 wrong usage, 4 problems
    were found, and --repair gave all of their shards back: the command that wrote the dataset has to be given again.
    """

    input: CompressedFolder
    decode: bool = False
    """Decode to pixels too, and compare the error against the originals with the one in the metrics."""
    originals: str | None = None
    """Where the originals are now, if not where the compress job read them: as its --input."""
    sample: str = "100%"
    """Verify a random part of the shards, such as `1%`; every run draws others."""
    repair: bool = False
    """Give damaged shards back to the job that wrote them: its next run does these again, and only these. It needs the
    input and the bundle that it had."""
    bundle: BundleOption = None
    cluster: OmitArgPrefixes[ClusterOptions] = field(default_factory=ClusterOptions)
    log_json: bool = False
    """Write what happens as JSON to stderr, an object per line, and nothing else; see docs/operations.md."""

    def __post_init__(self) -> None:
        if not share_of(self.sample):
            raise ValueError(f"--sample is {self.sample}, expected a share of the shards such as 1%")
        if self.originals is not None and not self.decode:
            raise ValueError("--originals is given without --decode, which alone reads them")


@dataclass
class _Check:
    """The shards that are verified, by their numbers, and what is found beside them."""

    dataset: CompressedDataset
    worker: VerificationConfig
    markers: dict[int, Marker] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    given_back: dict[int, int] = field(default_factory=dict)  # shard -> retry
    num_lasting: int = 0  # problems that no rerun mends
    tally: Tally = field(default_factory=Tally)

    @property
    def num_images(self) -> int:
        return sum(marker.summary.num_images for marker in self.markers.values())

    def shards(self) -> Iterator[Shard]:
        """Return the shards with the references of the plan; where that is damaged, without."""
        output, left = self.dataset.output, dict(self.markers)
        manifest = output.manifest() or self.dataset.manifest  # as it is now: a run may have appended since it was read
        try:
            others = set(range(manifest.num_shards)) - left.keys()
            for shard in planned_shards(output, manifest, skip=others):
                yield replace(shard, replaces=left.pop(shard.index))
        except DamagedFileError as error:
            self.num_lasting += 1
            self.findings.append(Finding(Problem.DAMAGED_PLAN, str(error), file="plan"))
            yield from (Shard(index, (), marker) for index, marker in left.items())
        else:
            for index, marker in left.items():
                name = f"commits/{marker.name}"
                self.findings.append(Finding(Problem.DAMAGED_MARKER, "the plan has no such shard", index, name))
                self.given_back[index] = marker.retry

    def take(self, marker: Marker) -> None:
        """Count a shard that was verified."""
        self.tally.add(marker.summary)
        if any(Problem(problem).is_mended_by_a_rerun for problem in marker.summary.quarantined):
            self.given_back[marker.shard] = marker.retry
        else:
            self.num_lasting += marker.summary.num_quarantined


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job from the command line; return its exit code."""
    config = parse(VerifyDataset, arguments)
    with events.for_machines(config.log_json):
        return exit_code(lambda: verify_dataset(config))


def verify_dataset(config: VerifyDataset) -> ExitCode:
    """Verify the committed shards, or a sample of them, and print a summary."""
    with Cluster(job=JOB, **asdict(config.cluster)) as cluster:
        with usage():
            check = _prepare(config)
        output = check.dataset.output
        output.clear_findings()
        try:
            _run(check, cluster)
        except InterruptedWorkError:
            say("stopped: the dataset is verified in part, and nothing was repaired")
            return ExitCode.FAILED
    check.tally.add(counts(check.findings))
    total = check.tally.now
    output.folder.write(findings_name(check.worker.run), findings_table(check.findings, run=check.worker.run))
    if config.repair:
        for shard, retry in check.given_back.items():
            output.give_back(shard, retry)
    is_mended = config.repair and not check.num_lasting
    code = ExitCode.DONE if not total.quarantined else ExitCode.DONE_IN_PART if is_mended else ExitCode.FAILED
    events.emit("done", exit_code=code, **events.sums(total))
    _print_result(config, check)
    return code


def _prepare(config: VerifyDataset) -> _Check:
    dataset = CompressedDataset(config.input)
    settings = dataset.manifest.settings
    worker = VerificationConfig(
        output=absolute(config.input),
        run=uuid.uuid4().hex,
        codec=codec_of(
            dataset,
            config.bundle,
            coder=settings["coder"],
            device=config.cluster.device,
            max_pixels=settings["max_pixels"],
        ),
        originals=absolute(config.originals or settings["input"]) if config.decode else None,
        columns=Columns(settings["image_column"], settings["key_column"]),
        num_threads=config.cluster.cpus_per_worker,
    )
    check = _Check(dataset, worker)
    for shard, retry, marker in dataset.output.try_markers():
        if isinstance(marker, Marker):
            check.markers[shard] = marker
        else:
            check.findings.append(
                Finding(Problem.DAMAGED_MARKER, str(marker), shard, f"commits/{marker_name(shard, retry)}")
            )
            check.given_back[shard] = retry
    drawn = random.sample(sorted(check.markers), _sample_size(config, len(check.markers)))
    check.markers = {shard: check.markers[shard] for shard in sorted(drawn)}
    return check


def _sample_size(config: VerifyDataset, num_shards: int) -> int:
    share = share_of(config.sample) or 0.0
    return min(max(round(share * num_shards), 1), num_shards)


def _run(check: _Check, cluster: Cluster) -> None:
    """Verify shards as they come.

    Raises:
        WorkError: as `run_shards`.
        InterruptedWorkError: on Ctrl-C.
    """
    events.emit(
        "plan", output=str(check.dataset.output), num_images=check.num_images, num_images_done=0, verb="verified"
    )
    if not check.markers:
        return
    markers = run_shards(cluster, partial(ShardVerifier, check.worker), check.shards())
    progress = ProgressReport("verified", num_images=check.num_images, tally=check.tally, bad="problems")
    with progress, closing(markers):
        for marker in markers:
            check.take(marker)
            events.emit_shard(marker)
            progress.show()


def _print_result(config: VerifyDataset, check: _Check) -> None:
    total, manifest, output = check.tally.now, check.dataset.manifest, check.dataset.output
    num_problems = sum(total.quarantined.values())
    compared = [("pixels", f"{mean_text(total.psnr_db, '.2f', 'dB')} that were compared with their originals")]
    print_table(
        [
            ("verified", f"{len(check.markers)} of {manifest.num_shards} shards, {total.num_images} images"),
            ("read", num_bytes_text(total.num_bytes_in)),
            *(compared if config.decode else ()),
            ("problems", f"{num_problems} in {len(check.given_back)} damaged shards" if num_problems else "none"),
            ("a row each in", f"{shown(output)}/verify/*.parquet"),
        ]
    )
    print_quarantined(total)
    if check.given_back and config.repair:
        say(f"{len(check.given_back)} shards were given back; now they are not done")
        print_commands([("Do them again, with the command that wrote them:", writing_command(output))])
    elif check.given_back:
        arguments = ["--input", shown(output), *([] if config.bundle is None else ["--bundle", redact(config.bundle)])]
        purpose = "Give the damaged shards back to the job that wrote them, whose command then does them again:"
        print_commands([(purpose, job_command("verify_dataset", *arguments, "--repair"))])


if __name__ == "__main__":
    sys.exit(main())
