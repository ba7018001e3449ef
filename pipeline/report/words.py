"""The sentences of a report: what its numbers mean, for a reader who has not seen numbers of this kind before."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from bls.ladder import quality_text
from pipeline.console.text import duration_text, need_text, num_bytes_text
from pipeline.measures import MS_SSIM, PSNR, RATE
from pipeline.report.charts import STAGES, WAITING
from pipeline.report.equal_quality import CODECS, Spread
from pipeline.report.run import RunReport
from pipeline.work.threads import IO_THREADS

_LEVEL_PERCENT = 1.0  # codecs that differ by less are called level


def headline(run: RunReport) -> str:
    """Say in one sentence what was done."""
    total = run.total
    if not run.num_good:
        return f"None of {total.num_images:,} images could be compressed."
    verb = "shrank" if total.num_bytes_out <= total.num_bytes_in else "grew"
    return (
        f"{run.num_good:,} {'image' if run.num_good == 1 else 'images'} {verb} "
        f"from {num_bytes_text(total.num_bytes_in)} to {num_bytes_text(total.num_bytes_out)}."
    )


def saving_text(run: RunReport) -> str:
    """Say how many of the bytes are saved."""
    if not run.total.num_bytes_in:
        return "none"
    saved = 1 - run.total.num_bytes_out / run.total.num_bytes_in
    return f"{100 * saved:.1f} %" if saved >= 0 else f"none: {1 - saved:.1f} times as much"


def facts(run: RunReport) -> Iterator[tuple[str, str, str]]:
    """Return name, value and meaning of what the job was and did."""
    total, settings = run.total, run.settings
    num_compressed = run.num_good - total.num_kept
    yield "Images", f"{num_compressed:,}", f"compressed and verified, of {total.num_images:,} that were looked at"
    if total.num_kept:
        yield "Kept", f"{total.num_kept:,}", "originals that are stored as they were: bitstreams would be larger"
    sizes = f"{num_bytes_text(total.num_bytes_in)} became {num_bytes_text(total.num_bytes_out)}"
    yield "Saved", saving_text(run), f"of the originals' bytes: {sizes}"
    fate = (
        "could not be compressed: a row each says why" if total.num_quarantined else "every image could be compressed"
    )
    yield "Quarantined", f"{total.num_quarantined:,}", fate
    mean_rate = "" if total.bpp.value is None else f"; mean of images {total.bpp.value:{RATE.format}}"
    yield RATE.name, RATE.text(total.total_bpp), f"{RATE.meaning}; all bits over all pixels{mean_rate}"
    for measure, mean in ((PSNR, total.psnr_db), (MS_SSIM, total.ms_ssim)):
        yield measure.name, measure.text(mean.value), f"{measure.meaning}; mean of {mean.count:,}"
    times = run.times
    if times.seconds:
        workers = f"{len(times.workers):,} worker{'s' if len(times.workers) != 1 else ''}"
        yield (
            "Time",
            duration_text(times.seconds),
            (f"in which somebody worked; {workers} in all, {times.mean_workers:.1f} at a time on average"),
        )
        rate = f"{total.num_images / times.seconds:,.1f} images per second"
        yield "Speed", f"{total.num_pixels / 1e6 / times.seconds:,.2f} MP/s", f"megapixels per second; {rate}"
    model = f"network {settings['model_fingerprint']}, entropy coder {settings['coder']}, effort {settings['effort']}"
    yield "Quality", _quality(run), f"from 1, smallest, to 8, best; {model}"
    if settings["target"] is not None:
        missed = f"; {total.num_targets_missed:,} images miss it at any quality" if total.num_targets_missed else ""
        yield "Target", settings["target"], f"for which the quality was searched{missed}"


def _quality(run: RunReport) -> str:
    quality: float | None = run.settings["quality"]
    if quality is not None:
        return quality_text(quality) + ("" if run.lmbda is None else f" (λ {run.lmbda:g})")
    return "none" if run.total.quality.value is None else f"{quality_text(run.total.quality.value)} on average"


def progress(run: RunReport) -> str:
    """Say how much of the job is missing; nothing where it is complete."""
    if len(run.shards) >= run.num_shards_planned:
        return ""
    return (
        f"The job is not finished: {len(run.shards):,} of {run.num_shards_planned:,} shards, "
        f"{run.total.num_images:,} of {run.num_images_planned:,} images. The report is about these."
    )


def stage_rows(run: RunReport) -> list[tuple[str, float, float | None, float | None]]:
    """Return name, seconds, share of the work and seconds per megapixel of every stage; waiting has no share."""
    seconds, megapixels = run.total.stage_seconds, run.total.num_pixels / 1e6
    total = _work_seconds(run)
    return [
        (
            name,
            seconds.get(stage, 0.0),
            None if stage == WAITING else seconds.get(stage, 0.0) / total,
            seconds.get(stage, 0.0) / megapixels if megapixels else None,
        )
        for stage, name in STAGES.items()
        if total
    ]


def limit(run: RunReport) -> str:
    """Say which stage limits the run."""
    rows = [(share, name) for name, _, share, _ in stage_rows(run) if share is not None]
    if not rows:
        return ""
    if run.total.stage_seconds.get(WAITING, 0.0) / IO_THREADS > _work_seconds(run):
        return f"Storage limits this run: workers wait for it, though each has up to {IO_THREADS} requests under way."
    share, name = max(rows)
    return f"Most of the work is the {name}: {100 * share:.0f} %."


def _work_seconds(run: RunReport) -> float:
    return sum(seconds for stage, seconds in run.total.stage_seconds.items() if stage != WAITING)


def verdicts(spreads: Sequence[Spread]) -> dict[str, list[str]]:
    """Say for each measure what ours needs at equal quality, losses as plainly as gains."""
    told: dict[str, list[str]] = {}
    for spread in spreads:
        if spread.quartiles is not None:
            told.setdefault(spread.measure, []).append(_verdict(CODECS[spread.codec], spread.quartiles[1]))
    return told


def _verdict(codec: str, median: float) -> str:
    if abs(median) < _LEVEL_PERCENT:
        return f"Ours needs as many bytes as {codec}, within {_LEVEL_PERCENT:g} %."
    return f"Ours needs {need_text(median)} bytes than {codec}."


def units(text: str) -> str:
    """Keep numbers and their units on one line."""
    for unit in ("%", "dB", "bpp", "MP/s", "min", "days", "kB", "MB", "GB", "TB", "B"):
        text = re.sub(rf"(?<=\d) (?={re.escape(unit)}(?:\W|$))", "\N{NO-BREAK SPACE}", text)
    return text


def row_numbers(row: dict[str, Any]) -> str:
    """Return the numbers of one image."""
    parts = [f"{row['width']} x {row['height']}", RATE.text(row["bpp"])]
    parts += [PSNR.text(row["psnr_db"])] if row["psnr_db"] is not None else ["no error at all"]
    parts += [f"MS-SSIM {MS_SSIM.text(row['ms_ssim'])}"] if row["ms_ssim"] is not None else ["MS-SSIM not measured"]
    parts += [
        f"{num_bytes_text(row['source_num_bytes'])} {row['source_format'] or ''} → {num_bytes_text(row['num_bytes'])}"
    ]
    return " · ".join(parts)
