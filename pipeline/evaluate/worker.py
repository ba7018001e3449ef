"""Rate and distortion of one image after another: our bitstreams and the files of other codecs, coded and decoded.

Plain classes that know nothing of Ray. A shard becomes one Parquet file, a row per image, codec and setting. What
cannot be read or coded is a row with the reason.
"""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from bls.codec import Codec, make_header
from bls.entropy.coders import CODERS
from bls.measures import images as measures
from bls.pixels import Pixels
from pipeline import baselines, images
from pipeline.baselines import BASELINES
from pipeline.images import ImageError
from pipeline.ledger.damage import read_tables
from pipeline.ledger.markers import Marker
from pipeline.ledger.output import Output
from pipeline.ledger.schema import EVALUATION
from pipeline.ledger.shard import Shard
from pipeline.ledger.summary import Summary
from pipeline.sources.opening import open_source
from pipeline.sources.reading import read_encoded
from pipeline.sources.reference import Columns, ImageReference
from pipeline.status import Status
from pipeline.storage.patience import Patience, have_patience
from pipeline.work.bundles import load_bundle
from pipeline.work.codec import WorkerCrashError, configure_process, other_bundle, try_out
from pipeline.work.commit import Results, commit_once
from pipeline.work.stages import Item

OURS = "bls"

Row = dict[str, Any]


def our_name(coder: str) -> str:
    """Return the name of our codec with an entropy coder, beside the others."""
    return f"{OURS}-{coder}"


@dataclass(frozen=True)
class EvaluationConfig:
    """What a worker needs; `codecs` are keys of BASELINES, `bundle` None the shipped one."""

    input: str
    output: str
    qualities: tuple[float, ...]
    codecs: tuple[str, ...]
    bundle: str | None
    bundle_fingerprint: str
    max_pixels: int
    effort: int = 0
    columns: Columns | None = None
    device: str = "cpu"
    num_threads: int = 1
    patience: Patience = field(default_factory=Patience)


class ShardEvaluator:
    """Measure shards of image references; every entropy coder gets rows of its own, the picture is the same.

    Raises:
        ValueError: the bundle is another, or the input is not a source of images.
    """

    def __init__(self, config: EvaluationConfig) -> None:
        configure_process(config.num_threads)
        have_patience(config.patience)
        self._config = config
        self._codec = _load_codec(config)
        for coder in CODERS:
            try_out(self._codec, quality=config.qualities[0], coder=coder, effort=config.effort)
        self._source = open_source(config.input, config.columns)
        self._output = Output(config.output)
        self._pool = ThreadPoolExecutor(config.num_threads)

    def run(self, shard: Shard, *, crashed: Collection[int] = ()) -> Marker:
        """Measure a shard and commit its rows; return the marker that stands, which may be another run's.

        `crashed` are the positions of the items that killed workers before: they get a row unseen.
        """
        return commit_once(
            self._output,
            shard,
            lambda: self._results(shard, crashed),
            schema=EVALUATION,
            metadata={"job": "evaluate", "bundle_fingerprint": self._config.bundle_fingerprint},
        )

    def probe(self, shard: Shard) -> None:
        """Do the work of a shard but commit nothing, to see whether the process survives it."""
        self._process(shard, ())

    def _results(self, shard: Shard, crashed: Collection[int]) -> Results:
        rows_by_image = self._process(shard, crashed)
        return Results([row for rows in rows_by_image for row in rows], summarize(rows_by_image))

    def _process(self, shard: Shard, crashed: Collection[int]) -> list[list[Row]]:
        return [list(self._evaluate(item, position in crashed)) for position, item in enumerate(shard.items)]

    def _evaluate(self, reference: ImageReference, crashed: bool) -> Iterator[Row]:
        source = Item(0, {"key": reference.key, "status": Status.OK})
        if crashed:
            source.quarantine(Status.CRASHED, WorkerCrashError())
        else:
            with source.stage():
                data = read_encoded(self._source, reference)
                x = images.decode(data, max_pixels=self._config.max_pixels).pixels
        source.fit(EVALUATION)
        if not source.ok:
            yield source.row
            return
        source.row.update(width=x.shape[1], height=x.shape[0], gray=x.ndim == 2)
        jobs = [(OURS, quality) for quality in self._config.qualities]
        jobs += [(codec, setting) for codec in self._config.codecs for setting in BASELINES[codec].settings]
        for rows in self._pool.map(lambda job: self._measure(x, source.row, *job), jobs):
            yield from rows

    def _measure(self, x: Pixels, source: Row, codec: str, setting: float) -> list[Row]:
        """Code an image; return a row per entropy coder for our codec, one for the others."""
        item = Item(0, {**source, "codec": codec, "quality": setting})
        with item.stage():
            if codec == OURS:
                files, columns = self._code(x, setting)
            else:
                data = baselines.encode(x, codec, setting)
                files, columns = {codec: data}, measure(x, baselines.decode(data, gray=x.ndim == 2))
            height, width = x.shape[:2]
            return [
                {
                    **item.row,
                    **columns,
                    "codec": name,
                    "num_bytes": len(data),
                    "bpp": measures.bpp(len(data), height=height, width=width),
                }
                for name, data in files.items()
            ]
        item.fit(EVALUATION)
        return [item.row]

    def _code(self, x: Pixels, quality: float) -> tuple[dict[str, bytes], Row]:
        """Return the bitstream of each entropy coder, and the measures of the picture that all of them give."""
        (symbols,) = self._codec.analyze([x], quality=quality, effort=self._config.effort)
        headers = {coder: make_header(x, quality=quality, coder=coder) for coder in CODERS}
        bitstreams = {coder: self._codec.encode(symbols, header=header) for coder, header in headers.items()}
        decoded = {coder: self._codec.decode(bitstream) for coder, bitstream in bitstreams.items()}
        for coder, (_, given) in decoded.items():
            if not (given == symbols).all():
                raise ImageError(Status.FAILED, f"the {coder} bitstream does not give its symbols back")
        (x_hat,) = self._codec.synthesize([decoded[CODERS[0]]])
        bits = self._codec.estimate_bits(symbols, quality=quality)
        columns = {**measure(x, x_hat), "estimated_bpp": bits / (x.shape[0] * x.shape[1])}
        return {our_name(coder): bitstream for coder, bitstream in bitstreams.items()}, columns


def _load_codec(config: EvaluationConfig) -> Codec:
    bundle = load_bundle(config.bundle)
    if (fingerprint := bundle.fingerprint.hex()) != config.bundle_fingerprint:
        raise other_bundle("bundle", fingerprint, config.bundle_fingerprint)
    return Codec(bundle, device=config.device, max_pixels=config.max_pixels)


def measure(x: Pixels, x_hat: Pixels) -> Row:
    """Return the measures of a decoded image; PSNR is None without an error, MS-SSIM is None for small images."""
    mse_255, psnr_luma_db = measures.mse_255(x, x_hat), measures.psnr_luma_db(x, x_hat)
    return {
        "mse_255": mse_255,
        "psnr_db": measures.psnr_db(mse_255) if mse_255 > 0 else None,
        "psnr_luma_db": psnr_luma_db if math.isfinite(psnr_luma_db) else None,
        "ms_ssim": measures.ms_ssim(x, x_hat),
        "nlpd": measures.nlpd(x, x_hat),
    }


def summarize(rows_by_image: Iterable[Sequence[Row]]) -> Summary:
    """Count images; an image with a failed row counts as quarantined, for the reason of its first failed row."""
    worst = [next((row for row in rows if row["status"] != Status.OK), rows[0]) for rows in rows_by_image]
    return Summary.of_rows([{"num_bytes": 0, **row} for row in worst], bytes_in=["num_bytes"], bytes_out=["num_bytes"])


def read_rows(output: Output) -> pa.Table:
    """Read the rows of all committed shards, in the order of the input."""
    files = [marker.files["metrics"] for marker in output.markers()]
    return pa.concat_tables(read_tables(output.folder, files, EVALUATION)).replace_schema_metadata()


def ladders(codecs: Iterable[str]) -> Mapping[str, list[float]]:
    """Return the settings of each codec."""
    return {codec: list(BASELINES[codec].settings) for codec in codecs}
