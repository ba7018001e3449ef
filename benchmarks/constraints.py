"""What each of the paper's constraints, and the start from the KLT, does to a short fit.

    python -m benchmarks.constraints --images FOLDER

Every variant sees the same batches; the relaxed loss is measured on images that no variant was fitted to. Writes
benchmarks/results/constraints.json.
"""

import dataclasses
from dataclasses import dataclass

import torch
import tyro

from benchmarks.provenance import write_result
from bls.ladder import QualityRange, lmbda_of
from bls.training.model import Model
from bls.training.parallel import BatchPart
from bls.training.starts.klt import initialize_from_klt
from bls.training.trainer import Trainer, TrainingConfig
from bls.transforms.networks import TransformConfig
from pipeline.sources.opening import open_source
from pipeline.train.patches import PatchConfig, PatchSet

DEFAULT = TransformConfig()
VARIANTS = {
    "default": DEFAULT,
    "GDN at the latents": dataclasses.replace(DEFAULT, latent_gdn=True),
    "GDN at the latents, filters of unit norm": dataclasses.replace(DEFAULT, latent_gdn=True, unit_norm=True),
    "gamma not symmetric": dataclasses.replace(DEFAULT, symmetric_gamma=False),
}


@dataclass(frozen=True)
class Constraints:
    """Compare constraints and starts by short fits."""

    images: str
    """Folder of training images."""
    quality: float = 4
    steps: int = 400
    batch_size: int = 16
    num_threads: int = 1
    held_out: int = 50
    """Number of images that are held out of the fit and measured."""


def main(config: Constraints) -> None:
    """Fit every variant and write their losses."""
    torch.set_num_threads(config.num_threads)
    torch.set_flush_denormal(True)
    source = open_source(config.images)
    patches = PatchSet.read(source, source.references(), PatchConfig(patch_size=128, min_scale=1))
    held_out = PatchSet(patches.config, patches.images[-config.held_out :])
    training = PatchSet(patches.config, patches.images[: -config.held_out])
    results = {}
    for name, transform in VARIANTS.items():
        results[name] = _fit(config, transform, training, held_out, from_klt=True)
        print(name, results[name], flush=True)
    results["random start"] = _fit(config, DEFAULT, training, held_out, from_klt=False)
    settings = {"quality": config.quality, "steps": config.steps, "batch_size": config.batch_size, "patch_size": 128}
    print(write_result("constraints", {**settings, "loss_bpp_psnr_db": results}))


def whole(size: int) -> BatchPart:
    """Return the part of a batch that is all of it."""
    return BatchPart(0, size, size)


def _fit(
    config: Constraints, transform: TransformConfig, training: PatchSet, held_out: PatchSet, *, from_klt: bool
) -> list[float]:
    """Return loss, estimated bpp and PSNR on held-out images after the fit."""
    torch.manual_seed(0)
    model = Model(transform, QualityRange(config.quality, config.quality))
    if from_klt:
        initialize_from_klt(model, training.batch(config.steps, whole(64)), lmbda=lmbda_of(config.quality))
    trainer = Trainer(model, TrainingConfig(steps=config.steps, bfloat16="all"))
    for step in range(config.steps):
        trainer.train_step(training.batch(step, whole(config.batch_size)))
    with torch.no_grad():
        generator = torch.Generator().manual_seed(0)
        relaxed = model(held_out.batch(0, whole(128)), torch.full((128,), config.quality), generator=generator)
    psnr_db = -10 * torch.log10(relaxed.mse_255 / 255**2)
    return [round(value.item(), 4) for value in (relaxed.loss, relaxed.bpp, psnr_db)]


if __name__ == "__main__":
    main(tyro.cli(Constraints))
