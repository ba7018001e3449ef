"""The charts of a report as Vega-Lite specifications; the page draws them in its own colours.

Every chart has a description for those who do not see it. Points and bars are few, whatever the dataset's size.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.ledger.summary import Summary
from pipeline.measures import MEASURES, PSNR, RATE
from pipeline.report.equal_quality import CODECS, Need
from pipeline.report.run import OTHERS, Row, RunReport
from pipeline.report.samples import Histogram
from pipeline.report.times import WorkerTimes

Chart = dict[str, Any]

MIN_BARS, MAX_BARS = 8, 40
MAX_SHARDS = 40
MAX_WORKERS = 30
STAGES: Mapping[str, str] = {
    "fetch": "waiting for storage",
    "decode": "decoding of originals",
    "analysis": "analysis transform",
    "entropy_encode": "entropy coding",
    "entropy_decode": "entropy decoding",
    "synthesis": "synthesis transform",
    "quality": "measuring of quality",
}
WAITING = "fetch"
"""The stage that several images of a worker are in at a time."""

_STAGE_COLOURS: Chart = {
    "color": {"field": "stage", "type": "nominal", "title": None, "sort": list(STAGES.values())},
    "order": {"field": "order"},
}
_STAGE_TOOLTIP: list[Chart] = [
    {"field": "stage", "type": "nominal"},
    {"field": "seconds", "type": "quantitative", "title": "s per megapixel", "format": ".3f"},
]


def _quantitative(field: str, title: str, **more: Any) -> Chart:
    return {"field": field, "type": "quantitative", "title": title, **more}


def _chart(description: str, values: Sequence[Mapping[str, Any]], height: int, **more: Any) -> Chart:
    return {
        "description": description,
        "data": {"values": list(values)},
        "width": "container",
        "height": height,
        **more,
    }


def rate_distortion(run: RunReport) -> Chart:
    """Draw each image of a sample at its rate and its PSNR."""
    values = [
        {"key": row["key"], "bpp": row["bpp"], "psnr": row["psnr_db"], "format": _format(run, row)}
        for row in run.sample
        if row["psnr_db"] is not None
    ]
    zero = {"zero": False, "nice": True}
    rates = {"scale": zero, "axis": {"tickCount": 8}}
    if run.histograms["bpp"].is_log:
        low, high = (extreme(value["bpp"] for value in values) for extreme in (min, max))
        rates = {"scale": {"type": "log", "nice": False}, "axis": _log_axis(low, high)}
    return _chart(
        f"Scatter plot of {len(values)} images: bits per pixel across, PSNR in decibels upwards, coloured by the "
        "format of the original.",
        values,
        320,
        mark={"type": "point", "filled": True, "size": 42, "opacity": 0.65},
        encoding={
            "x": _quantitative("bpp", "bits per pixel (fewer: smaller file)", **rates),
            "y": _quantitative("psnr", "PSNR, dB (more: closer to the original)", scale=zero, axis={"tickCount": 6}),
            "color": {"field": "format", "type": "nominal", "title": "original", "sort": list(run.savings)},
            "tooltip": [
                {"field": "key", "type": "nominal", "title": "image"},
                {"field": "bpp", "type": "quantitative", "title": RATE.label, "format": RATE.format},
                {"field": "psnr", "type": "quantitative", "title": PSNR.label, "format": PSNR.format},
            ],
        },
    )


def _log_axis(low: float, high: float) -> Chart:
    """Return the ticks 0.1, 0.2, 0.5, 1, and so on, as far as they lie between two values."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)))
    ticks = [step * 10.0**decade for decade in decades for step in (1, 2, 5)] + [10.0 ** math.ceil(math.log10(high))]
    return {"values": [tick for tick in ticks if low <= tick <= high], "format": "~g"}


def _format(run: RunReport, row: Row) -> str:
    name = row["source_format"] or "unknown"
    return name if name in run.savings else OTHERS


def histogram(histogram: Histogram, title: str, description: str, number_format: str) -> Chart:
    """Draw how many images have which value."""
    values = [{"start": a, "stop": b, "images": count} for a, b, count in histogram.bars(num_bars(histogram.count))]
    low = min((bar["start"] for bar in values), default=0.0)
    high = max((bar["stop"] for bar in values), default=1.0)
    scale = {"domain": [low, high], "nice": False, **({"type": "log"} if histogram.is_log else {})}
    return _chart(
        description,
        values,
        180,
        mark={"type": "bar", "binSpacing": 1},
        encoding={
            "x": _quantitative(
                "start",
                title,
                bin={"binned": True},
                scale=scale,
                axis=_log_axis(low, high) if histogram.is_log else {"tickCount": 5},
            ),
            "x2": {"field": "stop"},
            "y": _quantitative("images", "images", axis={"tickMinStep": 1, "tickCount": 4}),
            "tooltip": [
                {"field": "start", "type": "quantitative", "title": "from", "format": number_format},
                {"field": "stop", "type": "quantitative", "title": "to", "format": number_format},
                {"field": "images", "type": "quantitative", "title": "images"},
            ],
        },
    )


def num_bars(num_images: int) -> int:
    """Return how many bars show a spread: more for more images, by their cube root."""
    return min(max(math.ceil(3 * math.cbrt(num_images)), MIN_BARS), MAX_BARS)


def stages(total: Summary) -> Chart:
    """Draw the seconds of every stage."""
    values = [{"stage": name, "seconds": total.stage_seconds.get(stage, 0.0)} for stage, name in STAGES.items()]
    longest = max(values, key=lambda value: float(str(value["seconds"])))
    return _chart(
        f"Bar chart of seconds per stage; {longest['stage']} takes the longest.",
        values,
        170,
        mark={"type": "bar", "height": {"band": 0.7}},
        encoding={
            "x": _quantitative("seconds", "seconds of all workers together"),
            "y": {"field": "stage", "type": "nominal", "title": None, "sort": list(STAGES.values())},
            "tooltip": [
                {"field": "stage", "type": "nominal"},
                {"field": "seconds", "type": "quantitative", "format": ",.2f"},
            ],
        },
    )


def shown_shards(run: RunReport) -> list[tuple[int, Summary]]:
    """Return the shards that are drawn: all, or those with the most seconds per megapixel."""
    if len(run.shards) <= MAX_SHARDS:
        return list(run.shards)
    slowest = sorted(run.shards, key=lambda shard: -_seconds_per_megapixel(shard[1]))[:MAX_SHARDS]
    return sorted(slowest, key=lambda shard: shard[0])


def shards(run: RunReport) -> Chart:
    """Draw the seconds of shards by stage, per megapixel."""
    values = [{"shard": number, **bar} for number, summary in shown_shards(run) for bar in _stage_bars(summary)]
    return _chart(
        f"Stacked bars of the seconds per megapixel that {len(shown_shards(run))} shards took, by stage.",
        values,
        220,
        mark={"type": "bar"},
        encoding={
            "x": {
                "field": "shard",
                "type": "ordinal",
                "title": "shard",
                "axis": {"labelAngle": 0, "labelOverlap": True},
            },
            "y": _quantitative("seconds", "seconds per megapixel"),
            **_STAGE_COLOURS,
            "tooltip": [{"field": "shard", "type": "ordinal"}, *_STAGE_TOOLTIP],
        },
    )


def shown_workers(run: RunReport) -> list[WorkerTimes]:
    """Return the workers that are drawn, in the order in which they began: all, or the slowest."""
    workers = [worker for worker in run.times.workers if worker.summary.num_pixels]
    slowest = sorted(workers, key=lambda worker: -worker.seconds_per_megapixel)[:MAX_WORKERS]
    return [worker for worker in workers if worker in slowest]


def workers(run: RunReport) -> Chart:
    """Draw the seconds of workers by stage, per megapixel."""
    drawn = shown_workers(run)
    values = [{"worker": worker.name, **bar} for worker in drawn for bar in _stage_bars(worker.summary)]
    return _chart(
        f"Stacked bars of the seconds per megapixel that {len(drawn)} workers took, by stage.",
        values,
        _height(drawn),
        mark={"type": "bar", "height": {"band": 0.7}},
        encoding={
            "x": _quantitative("seconds", "seconds per megapixel", axis={"tickCount": 8}),
            "y": _worker_axis(drawn),
            **_STAGE_COLOURS,
            "tooltip": [{"field": "worker", "type": "nominal"}, *_STAGE_TOOLTIP],
        },
    )


def timeline(run: RunReport) -> Chart:
    """Draw when each worker was busy."""
    drawn = shown_workers(run)
    values = [
        {"worker": worker.name, "from": began, "to": ended, "megapixels": worker.summary.num_pixels / 1e6}
        for worker in drawn
        for began, ended in worker.busy
    ]
    return _chart(
        f"Bars of the times at which {len(drawn)} workers were busy, from the beginning of the job to its end.",
        values,
        _height(drawn),
        mark={"type": "bar", "height": {"band": 0.7}},
        encoding={
            "x": _quantitative(
                "from",
                "seconds since the first worker began",
                scale={"domainMax": run.times.seconds},
                axis={"tickCount": 8},
            ),
            "x2": {"field": "to"},
            "y": _worker_axis(drawn),
            "tooltip": [
                {"field": "worker", "type": "nominal"},
                {"field": "from", "type": "quantitative", "title": "busy from second", "format": ",.1f"},
                {"field": "to", "type": "quantitative", "title": "to", "format": ",.1f"},
                {"field": "megapixels", "type": "quantitative", "title": "megapixels in all", "format": ",.1f"},
            ],
        },
    )


def _stage_bars(summary: Summary) -> list[dict[str, Any]]:
    """Return what is drawn of each stage: its seconds per megapixel."""
    megapixels = summary.num_pixels / 1e6
    return [
        {"stage": name, "order": order, "seconds": summary.stage_seconds.get(stage, 0.0) / megapixels}
        for order, (stage, name) in enumerate(STAGES.items())
        if megapixels
    ]


def _worker_axis(drawn: Sequence[WorkerTimes]) -> Chart:
    names = [worker.name for worker in drawn]
    return {"field": "worker", "type": "nominal", "title": None, "sort": names, "axis": {"labelLimit": 150}}


def _height(drawn: Sequence[WorkerTimes]) -> int:
    return 40 + 22 * len(drawn)


def equal_quality(needs: Sequence[Need], measure: str) -> Chart:
    """Draw bytes for the same quality, ours beside other codecs: a point per image, quartiles and median."""
    values = [
        {"codec": CODECS[need.codec], "percent": 100 / need.ratio}
        for need in needs
        if need.measure == measure and need.ratio is not None
    ]
    y = {"field": "codec", "type": "nominal", "title": None, "sort": list(CODECS.values()), "axis": {"labelLimit": 200}}
    x = _quantitative(
        "percent",
        "our bytes, in percent of the other codec's",
        scale={"zero": False, "nice": True},
        axis={"tickCount": 6},
    )
    return _chart(
        f"For each codec, the bytes that ours needs for the same {MEASURES[measure].name} in percent of "
        "its bytes: a point per image, a bar from lower to upper quartile, a tick at the median. 100 is level.",
        values,
        190,
        layer=[
            {
                "mark": {"type": "rule", "strokeDash": [4, 3], "style": "baseline"},
                "encoding": {"x": {"datum": 100, "type": "quantitative"}},
            },
            {
                "mark": {"type": "errorbar", "extent": "iqr", "rule": {"strokeWidth": 12, "opacity": 0.28}},
                "encoding": {"x": x, "y": y},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 26, "opacity": 0.55},
                "encoding": {
                    "x": x,
                    "y": y,
                    "tooltip": [
                        {"field": "codec", "type": "nominal"},
                        {"field": "percent", "type": "quantitative", "title": "our % of its bytes", "format": ".0f"},
                    ],
                },
            },
            {
                "mark": {"type": "tick", "thickness": 3, "size": 22},
                "encoding": {"x": {**x, "aggregate": "median"}, "y": y},
            },
        ],
    )


def _seconds_per_megapixel(summary: Summary) -> float:
    return sum(summary.stage_seconds.values()) / max(summary.num_pixels / 1e6, 1e-9)
