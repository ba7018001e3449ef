"""Fit models to images, one per lmbda, with Ray Train, and write them as a bundle.

    python jobs/train.py --data photos/ --output my-bundle --storage runs/photos --lmbda 0.0035 0.013 0.0483

A run that was killed goes on from its checkpoints when the same command is given again.
"""

import json
import math
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bls.bundle import MANIFEST, FittedNetwork, load_bundle, network_file, read_bundle, save_bundle
from bls.ladder import QualityRange, check_disjoint, lmbda_of, quality_text
from bls.training.trainer import TrainingConfig
from bls.transforms.networks import TransformConfig
from jobs.options import check_at_least, parse
from pipeline.console.exits import ExitCode, exit_code, usage
from pipeline.console.printing import job_command, print_commands, print_table, say
from pipeline.console.text import reasons_text
from pipeline.extras import check_installed
from pipeline.ledger.written import check_replaceable, write_results
from pipeline.sources.opening import check_apart, open_sources
from pipeline.sources.reference import Columns
from pipeline.storage.folder import Folder
from pipeline.storage.opening import open_folder
from pipeline.storage.secrets import redact, without_credentials
from pipeline.storage.uris import absolute
from pipeline.train.curve_plot import plot_training_curve
from pipeline.train.fit import LMBDA_SCALES, FitConfig
from pipeline.train.fitted import read_curve, read_fitted
from pipeline.train.images import Images, read_images
from pipeline.train.patches import PatchConfig
from pipeline.train.resources import Milestones, Resources, cluster
from pipeline.train.sweep import fit_networks
from pipeline.work.bundles import load_network

CURVES, CURVES_PLOT = "training.parquet", "training.png"  # beside the models of a bundle


@dataclass(frozen=True)
class TrainConfig:
    """Fit networks to images, one per range of qualities, with Ray Train, and write them as a bundle."""

    data: tuple[str, ...]
    """Training images, any URIs that fsspec reads: folders, patterns, tars, Parquet files, lists (README, Use)."""
    output: str
    """Folder of the bundle, a path or URI; networks of other qualities that are already in it are kept."""
    storage: str
    """Folder (any URI, seen by all nodes) for checkpoints and fitted networks: what a killed run goes on from."""
    overwrite: bool = False
    """Replace networks of the same qualities in --output: what they compressed can then no longer be decoded."""
    image_column: str | None = None
    """Of Parquet data: the column of images or of their URIs; without it the one that can only be it."""
    qualities: tuple[str, ...] = ("4",)
    """What to fit, a network each: a range of qualities such as 1:4.5, or a single quality such as 4, which is the
    paper's way. A quality stands for the weight lmbda = 0.0018 * 100 ** ((quality - 1) / 7) in `lmbda * 255**2 * mse +
    bpp`. The range nearest to 4 is fitted first, the others from it."""
    init: str = "klt"
    """Where the first network starts: `klt`, or a fitted network as BUNDLE#QUALITY."""
    num_filters: int = 128
    """Filters per stage: 128 for the low rates, 192 for the high ones."""
    num_latents: int | None = None
    """Channels of the latents; without it as many as filters."""
    channels: Literal[1, 3] = 3
    """1: grayscale, 3: RGB."""
    distortion: Literal["mse", "ms-ssim", "nlp"] = "mse"
    """What to minimise beside the rate."""
    lmbda_scale: float | None = None
    """What every lmbda is multiplied by, as distortions have different units; by default 1 for mse, 2500 for ms-ssim,
    300 for nlp."""
    steps: int = 6000
    """Optimiser steps per network."""
    batch_size: int = 8
    """Patches per step, of all workers together."""
    patch_size: int = 192
    """Side of a patch in pixels, a multiple of 16."""
    min_scale: float = 0.5
    """Images are downsampled by a random factor from this to 1."""
    learning_rate: float | None = None
    """Of Adam, at its highest; by default 1e-3, and less where the middle of the range is above quality 4."""
    schedule: Literal["cosine", "plateau"] = "cosine"
    """`cosine`: warm-up, hold, decay; `plateau`: the paper's, divided by 10 whenever the loss stalls."""
    bfloat16: bool = False
    """Run the transforms in bfloat16 while training: faster, at some loss (docs/decisions/0005-precision.md)."""
    max_cached_gib: float = 4.0
    """Decoded images that are kept in memory; a larger set is streamed from its source."""
    checkpoint_steps: int = 250
    """Steps between checkpoints."""
    evaluation_steps: int = 1000
    """Steps between measurements of real bitstreams of held-out images; a multiple of --checkpoint-steps."""
    num_workers: int = 1
    """Processes that share each batch."""
    max_workers: int | None = None
    """With a cluster that grows: use up to so many."""
    cpus_per_worker: int | None = None
    """CPUs, and threads, of a worker; without it the CPUs of this machine are shared out, on a cluster 1."""
    use_gpu: bool = False
    """Give each worker a GPU."""
    max_worker_failures: int = 3
    """Times that lost workers are replaced, per model."""
    seed: int = 0
    description: str = ""
    """What the data is and its licence, for those who get the bundle."""

    def __post_init__(self) -> None:
        check_at_least(1, num_workers=self.num_workers, cpus_per_worker=self.cpus_per_worker, steps=self.steps)
        check_at_least(1, batch_size=self.batch_size, checkpoint_steps=self.checkpoint_steps)
        check_at_least(self.num_workers, max_workers=self.max_workers)
        check_at_least(max(self.num_workers, self.max_workers or 1), batch_size=self.batch_size)
        if self.evaluation_steps % self.checkpoint_steps:
            raise ValueError(
                f"--evaluation-steps is {self.evaluation_steps}, expected a multiple of --checkpoint-steps "
                f"{self.checkpoint_steps}"
            )
        if not self.data or not self.qualities:
            raise ValueError("expected at least one --data folder and one of --qualities, such as 1:4.5")
        check_disjoint(self.ranges())
        self.fits()

    def ranges(self) -> list[QualityRange]:
        """Return the qualities of each network."""
        return [QualityRange.parse(text) for text in self.qualities]

    def fits(self) -> list[FitConfig]:
        """Return the configuration of every network."""
        return [
            FitConfig(
                qualities=qualities,
                training=TrainingConfig(
                    lmbda_scale=self.lmbda_scale or LMBDA_SCALES[self.distortion],
                    steps=self.steps,
                    schedule=self.schedule,
                    learning_rate=self.learning_rate or default_learning_rate(lmbda_of(qualities.middle)),
                    autocast=self.bfloat16,
                    seed=self.seed,
                ),
                model=self.transforms(),
                patches=PatchConfig(self.patch_size, self.channels, self.min_scale, seed=self.seed),
                batch_size=self.batch_size,
                distortion=self.distortion,
            )
            for qualities in self.ranges()
        ]

    def transforms(self) -> TransformConfig:
        """Return the architecture of all networks."""
        num_latents = None if self.num_latents == self.num_filters else self.num_latents
        return TransformConfig(self.num_filters, num_latents, self.channels)

    def resources(self) -> Resources:
        """Return what each fit runs on."""
        shared = 1 if os.environ.get("RAY_ADDRESS") else max(1, (os.cpu_count() or 1) // self.num_workers)
        cpus = self.cpus_per_worker or shared
        return Resources(self.num_workers, self.max_workers, cpus, self.use_gpu, self.max_worker_failures)


def default_learning_rate(lmbda: float) -> float:
    """Return a rate at which the loss falls from the KLT start on (docs/decisions/0009-learning-rate.md)."""
    return 1e-3 * math.sqrt(min(1.0, lmbda_of(4.0) / lmbda))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job from the command line; return its exit code."""
    config = parse(TrainConfig, arguments)
    return exit_code(lambda: train(config))


def train(config: TrainConfig) -> ExitCode:
    """Fit every network that the storage folder does not hold yet, and add all to the bundle."""
    storage, output = open_folder(config.storage), open_folder(config.output)
    with usage():
        check_installed("matplotlib", extra="train", what="training curves")
        source = open_sources([absolute(uri) for uri in config.data], Columns(config.image_column))
        check_apart(config.output, *config.data)
        check_apart(config.storage, *config.data)
        start = _start(config)
        check_replaceable(output, _files(config.ranges()), ours=_names_in_bundle(output))
        if not config.overwrite:
            _check_nothing_is_lost(output, storage, config.ranges())
        for fit in config.fits():
            _check_settings(storage, fit, data=_data_names(config), init=_init_name(start))
    resources = config.resources()
    with cluster(resources):
        with usage():
            images = read_images(source, config.fits()[0].patches, max_cached_gib=config.max_cached_gib)
        say(_images_text(images))
        fitted = fit_networks(
            config.fits(),
            images,
            storage,
            start=start,
            resources=resources,
            milestones=Milestones(config.checkpoint_steps, config.evaluation_steps),
            description=_describe(config, images, start),
        )
        for network in fitted:
            _add_to_bundle(output, network, storage)
            say(f"quality {network.qualities}: in {output}, fingerprint {network.fingerprint.hex()}")
    _print_summary(config)
    return ExitCode.DONE


def _start(config: TrainConfig) -> FittedNetwork | None:
    """Return the network that --init names, None for the KLT."""
    if config.init == "klt":
        return None
    folder, _, quality = config.init.rpartition("#")
    if not folder or not quality:
        raise ValueError(f"--init {config.init} is not a network of a bundle: expected klt or BUNDLE#QUALITY")
    start = load_network(folder, QualityRange.parse(quality).low)
    wanted = config.transforms()
    if start.config != wanted:
        raise ValueError(f"--init {config.init} is a network of {start.config}, this run fits {wanted}")
    return start


def _check_settings(storage: Folder, fit: FitConfig, *, data: list[str], init: str) -> None:
    """Note a network's settings when it is begun, and refuse to go on with others."""
    settings = {**json.loads(json.dumps(asdict(fit))), "data": data, "init": init}
    name = f"quality-{fit.qualities.stem}.json"
    if storage.create(name, json.dumps(settings, indent=2).encode()):
        return
    begun = json.loads(storage.read(name))
    differing = [key for key in settings if begun.get(key) != settings[key]]
    if differing:
        raise ValueError(
            f"{storage}/{name} was begun with {_pairs(begun, differing)}, this run has {_pairs(settings, differing)}: "
            "give the same flags, or another --storage"
        )


def _check_nothing_is_lost(output: Folder, storage: Folder, ranges: Sequence[QualityRange]) -> None:
    """Refuse to replace networks of a bundle, whose bitstreams nothing else decodes, by others than this storage's."""
    if not output.holds(MANIFEST):
        return
    for network in read_bundle(output.read, str(output)).networks:
        if not any(network.qualities.overlaps(each) for each in ranges):
            continue
        fitted = read_fitted(storage, network.qualities)
        if fitted is None or fitted.fingerprint != network.fingerprint:
            raise ValueError(
                f"--output {output} already has a network of quality {network.qualities}, fingerprint "
                f"{network.fingerprint.hex()}, that --storage {storage} does not hold: give another --output or "
                "--qualities, or --overwrite to replace it; what it compressed can then no longer be decoded"
            )


def _pairs(settings: dict[str, object], keys: list[str]) -> str:
    return "; ".join(f"{key} {settings.get(key)}" for key in keys)


def _names(uris: tuple[str, ...]) -> list[str]:
    """Return the last parts of URIs: what of them may stand in a bundle that is passed on."""
    return [without_credentials(uri).rstrip("/").rpartition("/")[2] for uri in uris]


def _data_names(config: TrainConfig) -> list[str]:
    """Return the names of the data, with the column of a Parquet file where it was chosen."""
    return _names(config.data) + ([f"column {config.image_column}"] if config.image_column else [])


def _init_name(start: FittedNetwork | None) -> str:
    """Return where the first network starts, without the path to it."""
    return "klt" if start is None else f"quality {start.qualities} of {start.fingerprint.hex()}"


def _describe(config: TrainConfig, images: Images, start: FittedNetwork | None) -> dict[str, object]:
    return {
        "code_version": version("bls-codec"),
        "data": config.description or ", ".join(_names(config.data)),
        "num_images": len(images.stream) if images.stream is not None else images.num_decoded - images.num_held_out,
        "sweep_init": _init_name(start),
    }


def _images_text(images: Images) -> str:
    left_out = reasons_text(images.dropped) or "none"
    text = f"{images.num_decoded} images decoded, {images.num_held_out} of them held out; left out: {left_out}"
    return text if images.stream is None else f"{text}; training on a stream of {len(images.stream)}"


def _add_to_bundle(output: Folder, fitted: FittedNetwork, storage: Folder) -> None:
    """Add a network to the bundle, and its curve to the table and the plot beside it; the manifest is written last."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in _names_in_bundle(output):
            if name != CURVES_PLOT:  # which is drawn anew
                (folder / name).write_bytes(output.read(name))
        present = load_bundle(temporary).networks if (folder / MANIFEST).exists() else ()
        networks = [each for each in present if not each.qualities.overlaps(fitted.qualities)]
        save_bundle(folder, [*networks, fitted])
        curves = [read_curve(storage, fitted.qualities)]
        table_path = folder / CURVES
        if table_path.exists():
            others = pq.read_table(table_path)
            curves.append(others.filter(pc.field("qualities").isin([str(each.qualities) for each in networks])))
        table = pa.concat_tables(curves).sort_by([("qualities", "ascending"), ("step", "ascending")])
        pq.write_table(table, table_path)
        (folder / CURVES_PLOT).write_bytes(plot_training_curve(table))
        paths = sorted(folder.iterdir(), key=lambda path: path.name == MANIFEST)
        files = {path.name: path.read_bytes() for path in paths}
        write_results(output, files, ours=_names_in_bundle(output))


def _files(ranges: Sequence[QualityRange]) -> list[str]:
    """Return the names of all files that are written to the bundle."""
    return [MANIFEST, CURVES, CURVES_PLOT, *map(network_file, ranges)]


def _names_in_bundle(output: Folder) -> list[str]:
    """Return the files of a bundle that is there; what else lies in the folder is left alone."""
    if not output.holds(MANIFEST):
        return []
    files = [entry["file"] for entry in json.loads(output.read(MANIFEST))["networks"]]
    return [MANIFEST, *files, *(name for name in (CURVES, CURVES_PLOT) if output.holds(name))]


def _print_summary(config: TrainConfig) -> None:
    bundle = redact(absolute(config.output) if "://" in config.output else config.output).rstrip("/")
    print_table([("bundle", bundle), ("training curve", f"{bundle}/{CURVES_PLOT}")])
    arguments = ("--input", config.data[0], "--output", "compressed-mine", "--bundle", bundle)
    quality = ("--quality", quality_text(config.ranges()[0].low))
    print_commands([("Compress with it:", job_command("compress_dataset", *arguments, *quality))])


if __name__ == "__main__":
    sys.exit(main())
