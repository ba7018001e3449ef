"""What a CPU-minute of training buys: short fits of equal time, which go on from a shipped model.

    python -m benchmarks.training_trials --images PHOTOS

Compared is lmbda * 255^2 * mse + bpp of held-out images with rounded latents, in float32, bpp being the code length
under the images' own density. Writes benchmarks/results/training_trials.json.
"""

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import tyro

from benchmarks.provenance import write_result
from bls.bundle import FittedModel, load_bundle
from bls.density import Density
from bls.distortion import mse_255
from bls.klt import initialize_from_weights
from bls.model import Model
from bls.parallel import BatchPart
from bls.quantization import quantize
from bls.training import Trainer, TrainingConfig
from pipeline.patches import PatchConfig, PatchSet
from pipeline.sources import open_source

TIMED_STEPS = 20
"""Steps that are taken first, to know how many fill the time."""


@dataclass(frozen=True)
class Trial:
    """How one fit differs from the others."""

    bfloat16: bool = False
    learning_rate: float = 2e-4
    patch_size: int = 192
    batch_size: int = 8
    min_scale: float = 1.0


TRIALS = {
    "float32": Trial(),
    "bfloat16": Trial(bfloat16=True),
    "learning rate 5e-4": Trial(learning_rate=5e-4),
    "4 patches of 256": Trial(patch_size=256, batch_size=4),
    "images downsampled by up to 2": Trial(min_scale=0.5),
}


@dataclass(frozen=True)
class TrainingTrials:
    """Compare ways to go on with a fit."""

    images: str
    """Folder of training images."""
    quality: int = 4
    """Of the shipped bundle: where every fit starts."""
    seconds: float = 120.0
    """That each fit takes."""
    held_out: int = 50


def main(config: TrainingTrials) -> None:
    """Fit every variant and write what it gained."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    start = load_bundle().models[config.quality]
    held_out = _read(config, Trial()).images[: config.held_out]
    results = {"start": _measure(_model(start), start.lmbda, held_out)}
    for name, trial in TRIALS.items():
        results[name] = _fit(config, trial, start, held_out)
        print(name, results[name], flush=True)
    trials = {name: dataclasses.asdict(trial) for name, trial in TRIALS.items()}
    settings = {"quality": config.quality, "lmbda": start.lmbda, "seconds": config.seconds, "trials": trials}
    print(write_result("training_trials", {**settings, "results": results}))


def _fit(config: TrainingTrials, trial: Trial, start: FittedModel, held_out: Sequence[np.ndarray]) -> dict[str, float]:
    patches = _read(config, trial)
    patches.images = patches.images[config.held_out :]
    part = BatchPart(0, trial.batch_size, trial.batch_size)
    training = TrainingConfig(
        lmbda=start.lmbda,
        steps=10**9,
        learning_rate=trial.learning_rate,
        warmup_steps=25,
        autocast=trial.bfloat16,
    )
    timed = Trainer(_model(start), training)
    began = time.perf_counter()
    for step in range(TIMED_STEPS):
        timed.train_step(patches.batch(step, part))
    steps = int(config.seconds / ((time.perf_counter() - began) / TIMED_STEPS))
    model = _model(start)
    trainer = Trainer(model, dataclasses.replace(training, steps=steps))
    for step in range(steps):
        trainer.train_step(patches.batch(step, part))
    return {"steps": steps, **_measure(model, start.lmbda, held_out)}


def _model(start: FittedModel) -> Model:
    torch.manual_seed(0)
    model = Model(start.config)
    initialize_from_weights(model, start.weights, scale_step=1)
    return model


def _read(config: TrainingTrials, trial: Trial) -> PatchSet:
    source = open_source(config.images)
    patch_config = PatchConfig(patch_size=trial.patch_size, min_scale=trial.min_scale)
    return PatchSet.read(source, source.references(), patch_config)


@torch.no_grad()
def _measure(model: Model, lmbda: float, images: Sequence[np.ndarray]) -> dict[str, float]:
    density = Density(model.config.num_filters, momentum=1.0)
    symbols, mses, num_pixels = [], [], 0
    for x in PatchSet(PatchConfig(), list(images)).whole_images():
        symbols.append(quantize(model.analysis(x)))
        mses.append(mse_255(x, model.synthesis(symbols[-1]).clamp(0, 1)).item())
        density.update(symbols[-1])
        num_pixels += x.shape[2] * x.shape[3]
    bpp = sum(density.bits(y).sum().item() for y in symbols) / num_pixels
    psnr_db = np.mean([10 * np.log10(255**2 / mse) for mse in mses])
    loss = lmbda * np.mean(mses) + bpp
    return {"loss": round(float(loss), 4), "bpp": round(bpp, 4), "psnr_db": round(float(psnr_db), 3)}


if __name__ == "__main__":
    main(tyro.cli(TrainingTrials))
