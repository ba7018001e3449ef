"""The fit of one model: resumed it repeats an undisturbed one, its curve is complete, its model codes."""

import dataclasses
import json
from typing import Literal

import numpy as np
import pytest
import torch

from bls.bundle import Bundle
from bls.codec import Codec
from bls.ladder import QualityRange
from bls.training.parallel import BatchPart
from bls.training.trainer import TrainingConfig
from bls.transforms.networks import TransformConfig
from pipeline.train.fit import STEPS_PER_POINT, Fit, FitConfig, Sample
from pipeline.train.patches import PatchConfig, PatchSet
from tests.bundles import small_network
from tests.images import random_fields

STEPS = STEPS_PER_POINT + 5
CONFIG = FitConfig(
    qualities=QualityRange(4, 4),
    training=TrainingConfig(steps=STEPS, warmup_steps=2),
    model=TransformConfig(num_filters=12),
    patches=PatchConfig(patch_size=64),
    batch_size=2,
)
OTHER_SEED = dataclasses.replace(CONFIG, training=dataclasses.replace(CONFIG.training, seed=1))
PART = BatchPart(0, 2, 2)


@pytest.fixture(scope="module")
def sample() -> Sample:
    images = list((random_fields(6, 96, seed=4) * 255).round().byte().permute(0, 2, 3, 1).numpy())
    return Sample(PatchSet(CONFIG.patches, images[1:]), images[:1])


def run(fit: Fit, sample: Sample, steps: int) -> None:
    for x in sample.patches.batches(fit.step, steps, PART):
        fit.train_step(x)


@pytest.mark.parametrize("rate", ["density", "context"])
def test_a_resumed_fit_repeats_an_undisturbed_one(sample: Sample, rate: Literal["density", "context"]) -> None:
    config = dataclasses.replace(CONFIG, rate=rate)
    undisturbed = Fit(config, sample, PART)
    run(undisturbed, sample, STEPS)
    killed = Fit(config, sample, PART)
    run(killed, sample, 13)
    resumed = Fit(config, sample, PART, start=small_network())  # all that counts must come from the state
    resumed.load_state_bytes(killed.state_bytes())
    assert resumed.step == 13
    run(resumed, sample, STEPS)
    assert resumed.is_done and resumed.curve() == undisturbed.curve()
    assert [point["step"] for point in resumed.curve()] == [STEPS_PER_POINT, STEPS]
    assert resumed.fitted_network().fingerprint == undisturbed.fitted_network().fingerprint


def test_the_same_seed_begins_alike_and_leaves_the_global_generator_alone(sample: Sample) -> None:
    before = torch.random.get_rng_state()
    first = Fit(CONFIG, sample, PART)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(1)
    second, other = Fit(CONFIG, sample, PART), Fit(OTHER_SEED, sample, PART)
    weights = [torch.cat([each.flatten() for each in fit.trainer.model.parameters()]) for fit in (first, second, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_an_evaluation_measures_real_bitstreams_and_disturbs_nothing(sample: Sample) -> None:
    evaluated, alone = Fit(CONFIG, sample, PART), Fit(CONFIG, sample, PART)
    for fit in (evaluated, alone):
        run(fit, sample, STEPS_PER_POINT)
    bpp, psnr_db = evaluated.evaluate()
    codec = Codec(Bundle([evaluated.fitted_network()]))
    x = sample.held_out[0]
    assert bpp == pytest.approx(8 * len(codec.compress(x, quality=4)) / (x.shape[0] * x.shape[1]), rel=0.02)
    assert 15 < psnr_db < 60
    assert evaluated.curve()[-1]["held_out_bpp"] == bpp
    for fit in (evaluated, alone):
        run(fit, sample, STEPS)
    assert evaluated.curve()[-1] == alone.curve()[-1]


def test_a_fit_starts_from_a_neighbour(sample: Sample) -> None:
    start = Fit(CONFIG, sample, PART).fitted_network()
    finer = dataclasses.replace(CONFIG, qualities=QualityRange(5, 6))
    fit = Fit(finer, sample, PART, start=start)
    # The first loss is that of a good start, not of a random one.
    klt = Fit(finer, sample, PART).train_step(sample.patches.batch(0, PART)).loss
    assert fit.train_step(sample.patches.batch(0, PART)).loss == pytest.approx(klt, rel=0.1)


def test_further_latents_of_a_start_code_what_it_misses(sample: Sample) -> None:
    start = Fit(CONFIG, sample, PART).fitted_network()
    config = dataclasses.replace(CONFIG, model=TransformConfig(12, 24))
    wide = Fit(config, sample, PART, start=start).fitted_network()
    x = sample.held_out[0]
    errors = []
    for network in (start, wide):
        codec = Codec(Bundle([network]))
        errors.append(np.square(codec.decompress(codec.compress(x, quality=4)).astype(float) - x).mean())
    assert wide.config == config.model and errors[1] < 0.9 * errors[0]


def test_a_range_goes_on_with_its_gains(sample: Sample) -> None:
    config = dataclasses.replace(CONFIG, qualities=QualityRange(3, 5))
    fit = Fit(config, sample, PART)
    run(fit, sample, STEPS_PER_POINT)
    network = fit.fitted_network()
    again = Fit(config, sample, PART, start=network).fitted_network()
    np.testing.assert_array_equal(again.gains.log_gain, network.gains.log_gain)
    codec = Codec(Bundle([network]))
    sizes = [len(codec.compress(sample.held_out[0], quality=quality)) for quality in (3, 3.5, 4, 4.5, 5)]
    assert sizes == sorted(sizes) and sizes[0] < sizes[-1]
    assert fit.evaluate()[0] > 0 and fit.curve()[-1]["qualities"] == "3:5"


def test_what_a_bundle_says_of_its_fit_can_be_written(sample: Sample) -> None:
    training = Fit(CONFIG, sample, PART).fitted_network(description={"data": "fields"}).training
    assert training["data"] == "fields" and training["qualities"] == "4" and training["patches"]["patch_size"] == 64
    assert training["rate"] == "density"
    assert json.loads(json.dumps(training)) == training
