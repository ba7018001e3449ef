"""A compress job that keeps its total within a budget: the sample at its start, and the corrections at its end."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from pipeline.cluster.run import Result, Work
from pipeline.compress.budget import Steering
from pipeline.compress.curve import Curve, measure_curve
from pipeline.compress.forecast import draw_sample
from pipeline.compress.worker import CompressionConfig, ShardCompressor
from pipeline.console.exits import WorkError
from pipeline.console.printing import say
from pipeline.ledger.manifest import Manifest
from pipeline.ledger.output import Output
from pipeline.ledger.plan import planned_shards
from pipeline.sources.opening import no_images
from pipeline.sources.reference import ImageReference, Source
from pipeline.work.bundles import load_bundle

SAMPLE_SIZE = 128
MAX_CORRECTIONS = 8


def curve_of(output: Output) -> dict[str, Any] | None:
    """Return the curve that an earlier run measured, as its manifest has it; it is not measured again."""
    stored = output.manifest()
    return None if stored is None else stored.settings.get("curve")


def new_curve(source: Source, worker_config: CompressionConfig, budget: int) -> Curve:
    """Measure a sample.

    Raises:
        ValueError: there are no images, or the range of qualities does not reach the budget.
    """
    num_images, sample = draw_sample(source.references(), size=SAMPLE_SIZE)
    if not sample:
        raise no_images(source)
    say("a sample of the images is measured at several qualities")
    curve = measured_curve(replace(worker_config, carried=source.carried), sample)
    curve.check_reaches(budget, num_images)
    return curve


def measured_curve(worker_config: CompressionConfig, sample: Sequence[ImageReference], **options: int) -> Curve:
    """Measure a sample with all networks of the bundle; `options` are those of `measure_curve`."""
    bundle = load_bundle(worker_config.codec.bundle)
    fingerprint = bundle.fingerprint.hex()
    # The driver's node may have no GPU; what effort saves shows in what is committed.
    codec = replace(worker_config.codec, quality=None, model_fingerprint=fingerprint, device="cpu", effort=0)
    compressor = ShardCompressor(replace(worker_config, codec=codec, target=None, ms_ssim_share=0.0))
    return measure_curve(compressor, sample, bundle.qualities, **options)


def steering_of(budget: int, output: Output, manifest: Manifest, *, bundle: str | None) -> Steering:
    """Return what chooses the qualities of an output's shards."""
    curve, served = Curve.from_json(manifest.settings["curve"]), load_bundle(bundle).qualities
    return Steering(budget, curve, manifest, served, lambda done: planned_shards(output, manifest, skip=done))


def run_within_budget(work: Work, steering: Steering, run: Callable[[Work], Result]) -> Result:
    """Run to the end; if the total exceeds the budget then, do some of the shards again at lower qualities.

    Raises:
        WorkError: the total stays over the budget.
    """
    work = replace(work, saw=steering.saw, shards=steering.shards)
    for _ in range(MAX_CORRECTIONS):
        result = run(work)
        lowered = {} if result.is_stopped or result.damage else steering.lowered()
        if not lowered:
            return result
        say(f"the total is over the budget: {len(lowered)} shards are done again at a lower quality")
        work = replace(work, again=lowered, shards=partial(steering.lowered_shards, lowered))
    raise WorkError(f"the total is over the budget after {MAX_CORRECTIONS} corrections: give a larger budget")
