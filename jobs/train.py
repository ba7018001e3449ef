"""Fit models to a folder of images, one per lmbda, and write them as a bundle.

    python jobs/train.py --data photos/ --output my-bundle --lmbda 0.0035 0.013 0.0483

A run that was stopped goes on from its checkpoints when the same command is given again.
"""

import io
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import torch
import tyro

from bls import distortion
from bls.bundle import LMBDAS, FittedModel, load_bundle, save_bundle
from bls.fitting import make_fitted_model
from bls.klt import initialize_from_klt, initialize_from_weights, quantizer_step
from bls.model import Model
from bls.training import StepMetrics, Trainer, TrainingConfig
from bls.transforms import TransformConfig
from pipeline.patches import PatchConfig, PatchSet
from pipeline.sources import open_source
from pipeline.storage import Folder, open_folder

DISTORTIONS = {"mse": distortion.mse_255, "ms-ssim": distortion.ms_ssim, "nlp": distortion.nlp}


@dataclass(frozen=True)
class TrainConfig:
    """Fit models to a folder of images, one per lmbda, and write them as a bundle."""

    data: str
    """Folder of training images, any URI that fsspec reads."""
    output: Path
    """Folder of the bundle; models of other qualities that are already in it are kept."""
    lmbda: tuple[float, ...] = (LMBDAS[2], LMBDAS[4], LMBDAS[6])
    """Weights of `lmbda * 255**2 * mse + bpp`, one model each."""
    quality: tuple[int, ...] = ()
    """Numbers of the models in the bundle; by default the place of each lmbda on the field's ladder (0.013 is 4)."""
    init: str = "klt"
    """Where to start: `klt`, or a fitted model as BUNDLE#QUALITY."""
    distortion: Literal["mse", "ms-ssim", "nlp"] = "mse"
    """What to minimise beside the rate."""
    steps: int = 6000
    """Optimiser steps per model."""
    batch_size: int = 8
    """Patches per step."""
    learning_rate: float | None = None
    """Of Adam, at its highest; without it 1e-3, and less in proportion where lmbda is above 0.013."""
    schedule: Literal["cosine", "plateau"] = "cosine"
    """`cosine`: warm-up, hold, decay; `plateau`: the paper's, divided by 10 whenever the loss stalls."""
    patches: PatchConfig = field(default_factory=lambda: PatchConfig(patch_size=192))
    model: TransformConfig = field(default_factory=TransformConfig)
    checkpoints: str = "runs"
    """Folder (any URI) for the checkpoints of unfinished models."""
    checkpoint_minutes: float = 3.0
    device: str = "cpu"
    """Torch device, e.g. `cuda`."""
    num_threads: int = 0
    """CPU threads of torch; 0: its own choice."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.lmbda:
            raise ValueError("no lmbda given, expected at least one, e.g. --lmbda 0.013")
        if self.quality and len(self.quality) != len(self.lmbda):
            raise ValueError(f"{len(self.quality)} qualities for {len(self.lmbda)} lmbdas, expected one each")
        if self.patches.channels != self.model.channels:
            raise ValueError(
                f"patches have {self.patches.channels} channels, the model {self.model.channels}: "
                "give --patches.channels and --model.channels the same value"
            )
        self.qualities()

    def qualities(self) -> tuple[int, ...]:
        """Return the number of each model in the bundle."""
        if self.quality:
            return self.quality
        ladder = {lmbda: quality for quality, lmbda in LMBDAS.items()}
        unknown = [lmbda for lmbda in self.lmbda if lmbda not in ladder]
        if unknown:
            raise ValueError(f"lmbda {unknown[0]:g} is not on the ladder {LMBDAS}: number the models with --quality")
        return tuple(ladder[lmbda] for lmbda in self.lmbda)


def default_learning_rate(lmbda: float) -> float:
    """Return a rate at which the loss falls from the KLT start on (docs/decisions/0004-filters.md)."""
    return 1e-3 * min(1.0, LMBDAS[4] / lmbda)


def main(config: TrainConfig) -> None:
    """Fit every model that the bundle does not hold yet."""
    if config.num_threads:
        torch.set_num_threads(config.num_threads)
    # Squares of small gradients become denormal numbers, which x86 computes a hundred times slower.
    torch.set_flush_denormal(True)
    source = open_source(config.data)
    patches = PatchSet.read(source, config.patches)
    print(f"{len(patches.images)} images of {source}; left out: {dict(patches.dropped) or 'none'}", flush=True)
    checkpoints = open_folder(config.checkpoints)
    for quality, lmbda in zip(config.qualities(), config.lmbda, strict=True):
        trainer = _fit(config, quality, lmbda, patches=patches, checkpoints=checkpoints)
        print(f"quality {quality}: fitting density and coder to whole images", flush=True)
        fitted = make_fitted_model(
            trainer.model,
            patches.whole_images(),
            quality=quality,
            lmbda=lmbda,
            training=_describe(config, len(patches.images), trainer),
        )
        _add_to_bundle(config.output, fitted)
        print(f"quality {quality}: in {config.output}, fingerprint {fitted.fingerprint.hex()}", flush=True)


def _fit(config: TrainConfig, quality: int, lmbda: float, *, patches: PatchSet, checkpoints: Folder) -> Trainer:
    """Train one model from its checkpoint, or from its start, to the last step."""
    torch.manual_seed(config.seed)
    model = Model(config.model)
    training = TrainingConfig(
        lmbda=lmbda,
        steps=config.steps,
        learning_rate=config.learning_rate or default_learning_rate(lmbda),
        schedule=config.schedule,
        seed=config.seed,
    )
    checkpoint = f"{config.distortion}-quality-{quality}.pt"
    state = _read_checkpoint(checkpoints, checkpoint, training)
    if state is None:
        _initialize(model, config, lmbda, patches)
    trainer = Trainer(model, training, device=config.device, distortion=DISTORTIONS[config.distortion])
    if state is not None:
        trainer.load_state_dict(state)
        print(f"quality {quality}: going on from step {trainer.step} of {checkpoints}/{checkpoint}", flush=True)
    progress = _Progress(quality, config.steps, trainer.step)
    saved = time.monotonic()
    while trainer.step < config.steps:
        progress.update(trainer.train_step(patches.batch(trainer.step, config.batch_size)))
        if time.monotonic() - saved > 60 * config.checkpoint_minutes or trainer.step == config.steps:
            _write_checkpoint(checkpoints, checkpoint, training, trainer)
            saved = time.monotonic()
    return trainer


def _initialize(model: Model, config: TrainConfig, lmbda: float, patches: PatchSet) -> None:
    if config.init == "klt":
        initialize_from_klt(model, patches.batch(config.steps, 64), lmbda=lmbda)
        return
    folder, _, quality = config.init.rpartition("#")
    models = load_bundle(folder).models if folder and quality.isdecimal() else {}
    if not models or int(quality) not in models:
        raise ValueError(f"--init {config.init} names no model of a bundle: expected klt or BUNDLE#QUALITY")
    start = models[int(quality)]
    if start.config != config.model:
        raise ValueError(f"--init {config.init} is a model of {start.config}, this run fits {config.model}")
    scale_step = quantizer_step(lmbda) / quantizer_step(start.lmbda)
    initialize_from_weights(model, start.weights, scale_step=scale_step)


def _read_checkpoint(folder: Folder, name: str, training: TrainingConfig) -> dict[str, object] | None:
    """Return a trainer's state, None where there is none yet.

    Raises:
        ValueError: it was written by a run of other settings.
    """
    try:
        data = folder.read(name)
    except FileNotFoundError:
        return None
    saved = torch.load(io.BytesIO(data), weights_only=True)
    if saved["training"] != asdict(training):
        raise ValueError(
            f"{folder}/{name} was written with {saved['training']}, this run has {asdict(training)}: "
            "give the same flags, or another --checkpoints folder"
        )
    state: dict[str, object] = saved["state"]
    return state


def _write_checkpoint(folder: Folder, name: str, training: TrainingConfig, trainer: Trainer) -> None:
    file = io.BytesIO()
    torch.save({"training": asdict(training), "state": trainer.state_dict()}, file)
    folder.write(name, file.getvalue())


def _describe(config: TrainConfig, num_images: int, trainer: Trainer) -> dict[str, object]:
    return {
        "num_images": num_images,
        "distortion": config.distortion,
        "init": config.init.rpartition("/")[2],
        "batch_size": config.batch_size,
        "patch_size": config.patches.patch_size,
        **asdict(trainer.config),
    }


def _add_to_bundle(folder: Path, fitted: FittedModel) -> None:
    models = dict(load_bundle(folder).models) if (folder / "bundle.json").exists() else {}
    models[fitted.quality] = fitted
    save_bundle(folder, list(models.values()))


class _Progress:
    """Prints a line now and then: means since the last one."""

    SECONDS = 20.0

    def __init__(self, quality: int, steps: int, done: int) -> None:
        self._quality = quality
        self._steps = steps
        self._first = done
        self._start = self._printed = time.monotonic()
        self._window: list[StepMetrics] = []

    def update(self, metrics: StepMetrics) -> None:
        self._window.append(metrics)
        now = time.monotonic()
        if now - self._printed < self.SECONDS and metrics.step < self._steps:
            return
        loss, bpp, psnr = (
            sum(getattr(m, name) for m in self._window) / len(self._window)
            for name in ("loss", "estimated_bpp", "psnr_db")
        )
        remaining = (now - self._start) / (metrics.step - self._first) * (self._steps - metrics.step)
        print(
            f"quality {self._quality}  step {metrics.step}/{self._steps}  loss {loss:.4f}  estimated {bpp:.4f} bpp  "
            f"PSNR {psnr:.2f} dB  lr {metrics.learning_rate:.1e}  "
            f"{(now - self._printed) / len(self._window):.3f} s/step  {remaining / 60:.0f} min left",
            flush=True,
        )
        self._window, self._printed = [], now


if __name__ == "__main__":
    try:
        main(tyro.cli(TrainConfig))
    except (ValueError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, ValueError) else 1)
