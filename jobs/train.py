"""Fit networks to images, one per range of qualities, with Ray Train, and write them as a bundle.

    python jobs/train.py --data photos/ --output my-bundle --storage runs/photos --qualities 1:4.5 4.51:8

A run that was killed goes on from its checkpoints when the same command is given again.
"""

import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Literal

from bls.ladder import QualityRange, check_disjoint, lmbda_of, quality_text
from bls.network import FittedNetwork
from bls.training.trainer import Bfloat16, TrainingConfig
from bls.transforms.networks import TransformConfig
from jobs.options import ImageColumn, check_at_least, parse
from pipeline.cluster.connection import cluster_address
from pipeline.console.exits import ExitCode, exit_code, usage
from pipeline.console.printing import job_command, print_commands, print_table, say
from pipeline.console.text import reasons_text
from pipeline.extras import check_installed
from pipeline.sources.opening import check_apart, open_sources
from pipeline.sources.reference import Columns
from pipeline.storage.opening import open_folder
from pipeline.storage.secrets import redact, without_credentials
from pipeline.storage.uris import absolute
from pipeline.train.bundle import CURVES_PLOT, add_to_bundle, check_nothing_is_lost, check_writable
from pipeline.train.fit import LMBDA_SCALES, FitConfig
from pipeline.train.fitted import check_settings
from pipeline.train.images import Images, read_images
from pipeline.train.patches import PatchConfig
from pipeline.train.resources import Milestones, Resources, cluster
from pipeline.train.sweep import fit_networks
from pipeline.work.bundles import load_network


@dataclass(frozen=True)
class Train:
    """Fit networks to images, one per range of qualities, with Ray Train, and write them as a bundle."""

    data: tuple[str, ...]
    """Training images, any URIs that fsspec reads: folders, patterns, tars, Parquet files, lists (docs/datasets.md)."""
    output: str
    """Folder of the bundle, a path or URI; networks of other qualities that are already in it are kept."""
    storage: str
    """Folder (any URI, seen by all nodes) for checkpoints and fitted networks: what a killed run goes on from."""
    overwrite: bool = False
    """Replace networks of the same qualities in --output: what they compressed can then no longer be decoded."""
    image_column: ImageColumn = None
    qualities: tuple[str, ...] = ("4",)
    """Qualities to fit, one network for each item: a range such as 1:4.5, or a single quality such as 4, as in the
    paper. A quality stands for the weight lmbda = 0.0018 * 100 ** ((quality - 1) / 7) in `lmbda * 255**2 * mse +
    bpp`. The range nearest to 4 is fitted first, the others from it."""
    init: str = "klt"
    """Where the first network starts: `klt`, or a fitted network as BUNDLE#QUALITY, which may have fewer latents."""
    num_filters: int = 128
    """Filters per stage: 128 for the low rates, 192 for the high ones."""
    num_latents: int | None = None
    """Channels of the latents. Default: --num-filters."""
    channels: Literal[1, 3] = 3
    """Channels of the images: 1 (grayscale) or 3 (RGB)."""
    distortion: Literal["mse", "ms-ssim", "nlp"] = "mse"
    """Distortion to minimise together with the rate."""
    rate: Literal["density", "context"] = "density"
    """What counts the bits while fitting: `density`, each latent for itself, as in the paper; `context`, a network that
    predicts latents from others as the adaptive and mixed coders do: nearer to the bytes that are written, for
    about a fifth more time."""
    lmbda_scale: float | None = None
    """Factor on every lmbda, as distortions have different units. Default: 1 for mse, 2500 for ms-ssim, 300 for nlp."""
    gain_slope: float = TrainingConfig.gain_slope
    """How steeply the quantiser's gains rise over a range, relative to theory: above 1 a network reaches lower and
    higher rates, which narrows the gap between neighbouring networks (docs/decisions/0013)."""
    steps: int = 6000
    """Optimiser steps per network."""
    batch_size: int = 8
    """Patches per step, over all workers."""
    patch_size: int = 192
    """Side of a patch in pixels, a multiple of 16."""
    min_scale: float = 0.5
    """Images are downsampled by a random factor from this to 1."""
    learning_rate: float | None = None
    """Highest learning rate of Adam. Default: 1e-3, and less if the middle of the range is above quality 4."""
    warmup_steps: int = TrainingConfig.warmup_steps
    """Steps over which the learning rate rises to its highest value; in a short fit fewer, so that it gets there."""
    schedule: Literal["cosine", "plateau"] = "cosine"
    """`cosine`: warm-up, hold, decay; `plateau`: the paper's, divided by 10 whenever the loss stalls."""
    bfloat16: Bfloat16 = "gradients"
    """What to round to bfloat16 where the hardware multiplies it: nothing, the factors of the gradients, which loses
    nothing, or all inside of the transforms, faster, at some loss (docs/decisions/0005-precision.md)."""
    max_cached_gib: float = 4.0
    """GiB of decoded images to keep in memory; a larger set is streamed from its source."""
    checkpoint_steps: int = 250
    """Steps between checkpoints."""
    evaluation_steps: int = 1000
    """Steps between measurements of real bitstreams of held-out images; a multiple of --checkpoint-steps."""
    num_workers: int = 1
    """Processes that share each batch."""
    max_workers: int | None = None
    """Most workers to use when the cluster grows. Default: --num-workers."""
    cpus_per_worker: int | None = None
    """CPUs and threads of each worker. Default: an equal share of this machine's CPUs; on a cluster, 1."""
    use_gpu: bool = False
    """Give each worker a GPU."""
    max_worker_failures: int = 3
    """How many lost workers may be replaced per model before the job fails."""
    seed: int = 0
    """Seed of the first weights, the noise and the order of the images."""
    description: str = ""
    """What the data is and its licence, for those who get the bundle."""

    def __post_init__(self) -> None:
        check_at_least(1, num_workers=self.num_workers, cpus_per_worker=self.cpus_per_worker, steps=self.steps)
        check_at_least(1, batch_size=self.batch_size, checkpoint_steps=self.checkpoint_steps)
        check_at_least(self.num_workers, max_workers=self.max_workers)
        check_at_least(0, warmup_steps=self.warmup_steps)
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
                    warmup_steps=self.warmup_steps,
                    gain_slope=self.gain_slope,
                    bfloat16=self.bfloat16,
                    seed=self.seed,
                ),
                model=self.transforms(),
                patches=PatchConfig(self.patch_size, self.channels, self.min_scale, seed=self.seed),
                batch_size=self.batch_size,
                distortion=self.distortion,
                rate=self.rate,
            )
            for qualities in self.ranges()
        ]

    def transforms(self) -> TransformConfig:
        """Return the architecture of all networks."""
        num_latents = None if self.num_latents == self.num_filters else self.num_latents
        return TransformConfig(self.num_filters, num_latents, self.channels)

    def resources(self) -> Resources:
        """Return what each fit runs on."""
        shared = 1 if cluster_address() else max(1, (os.cpu_count() or 1) // self.num_workers)
        cpus = self.cpus_per_worker or shared
        return Resources(self.num_workers, self.max_workers, cpus, self.use_gpu, self.max_worker_failures)


def default_learning_rate(lmbda: float) -> float:
    """Return a rate at which the loss falls from the KLT start on (docs/decisions/0009-learning-rate.md)."""
    return 1e-3 * math.sqrt(min(1.0, lmbda_of(4.0) / lmbda))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job from the command line; return its exit code."""
    config = parse(Train, arguments)
    return exit_code(lambda: train(config))


def train(config: Train) -> ExitCode:
    """Fit every network that the storage folder does not hold yet, and add all to the bundle."""
    storage, output = open_folder(config.storage), open_folder(config.output)
    with usage():
        check_installed("matplotlib", extra="train", what="training curves")
        source = open_sources([absolute(uri) for uri in config.data], Columns(config.image_column))
        check_apart(config.output, *config.data)
        check_apart(config.storage, *config.data)
        start = _start(config)
        check_writable(output, config.ranges())
        if not config.overwrite:
            check_nothing_is_lost(output, storage, config.ranges())
        for fit in config.fits():
            check_settings(storage, fit, data=_data_names(config), init=_init_name(start))
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
            add_to_bundle(output, network, storage)
            say(f"quality {network.qualities}: in {output}, fingerprint {network.fingerprint.hex()}")
    _print_summary(config)
    return ExitCode.DONE


def _start(config: Train) -> FittedNetwork | None:
    """Return the network that --init names, None for the KLT."""
    if config.init == "klt":
        return None
    folder, _, quality = config.init.rpartition("#")
    if not folder or not quality:
        raise ValueError(f"--init {config.init} is not a network of a bundle: expected klt or BUNDLE#QUALITY")
    start = load_network(folder, QualityRange.parse(quality).low)
    wanted = config.transforms()
    latents = min(start.config.latents, wanted.latents)  # further ones are made to code what it misses
    if start.config != replace(wanted, num_latents=None if latents == wanted.num_filters else latents):
        raise ValueError(f"--init {config.init} is a network of {start.config}, this run fits {wanted}")
    return start


def _names(uris: tuple[str, ...]) -> list[str]:
    """Return the last parts of URIs: no more of them may stand in a bundle that is passed on."""
    return [without_credentials(uri).rstrip("/").rpartition("/")[2] for uri in uris]


def _data_names(config: Train) -> list[str]:
    """Return the names of the data, with the column of a Parquet file where it was chosen."""
    return _names(config.data) + ([f"column {config.image_column}"] if config.image_column else [])


def _init_name(start: FittedNetwork | None) -> str:
    """Return where the first network starts, without the path to it."""
    return "klt" if start is None else f"quality {start.qualities} of {start.fingerprint.hex()}"


def _describe(config: Train, images: Images, start: FittedNetwork | None) -> dict[str, object]:
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


def _print_summary(config: Train) -> None:
    bundle = redact(absolute(config.output) if "://" in config.output else config.output).rstrip("/")
    print_table([("bundle", bundle), ("training curve", f"{bundle}/{CURVES_PLOT}")])
    arguments = ("--input", config.data[0], "--output", "compressed-mine", "--bundle", bundle)
    quality = ("--quality", quality_text(config.ranges()[0].low))
    print_commands([("Compress with it:", job_command("compress_dataset", *arguments, *quality))])


if __name__ == "__main__":
    sys.exit(main())
