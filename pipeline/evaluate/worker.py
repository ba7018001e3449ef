"""Rate and distortion of one image after another: our bitstreams and the files of other codecs, coded and decoded.

Plain classes that know nothing of Ray. A shard becomes one Parquet file, a row per image, codec and setting. What
cannot be read or coded is a row with the reason.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pyarrow as pa

from bls.codec import Codec
from bls.entropy.coders import CODERS
from bls.pixels import Pixels
from pipeline import images
from pipeline.baselines import BASELINES
from pipeline.evaluate.coding import OURS, Row, code_other, code_ours
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
    efforts: tuple[int, ...] = (0,)
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
            try_out(self._codec, quality=config.qualities[0], coder=coder, effort=max(config.efforts))
        for quality in config.qualities:  # the first images have no longer times than others
            try_out(self._codec, quality=quality, coder=CODERS[0], effort=max(config.efforts))
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
        config = self._config
        jobs: list[tuple[str, float, int | None]]
        jobs = [(OURS, quality, effort) for effort in config.efforts for quality in config.qualities]
        jobs += [(codec, setting, None) for codec in config.codecs for setting in BASELINES[codec].settings]
        for rows in self._pool.map(lambda job: self._measure(x, source.row, *job), jobs):
            yield from rows

    def _measure(self, x: Pixels, source: Row, codec: str, quality: float, effort: int | None) -> list[Row]:
        """Code an image; return a row per entropy coder for our codec, one for the others."""
        item = Item(0, {**source, "codec": codec, "quality": quality, "effort": effort})
        with item.stage():
            if effort is not None:
                rows = code_ours(self._codec, x, quality=quality, effort=effort)
            else:
                rows = [code_other(x, codec, quality)]
            return [{**item.row, **row, **self._no_times} for row in rows]
        item.fit(EVALUATION)
        return [item.row]

    @property
    def _no_times(self) -> Row:
        """Return nothing where CPU seconds of the process are those of one thread; else columns without times."""
        one_thread = self._config.num_threads == 1 and self._config.device == "cpu"
        return {} if one_thread else {"encode_seconds": None, "decode_seconds": None}


def _load_codec(config: EvaluationConfig) -> Codec:
    bundle = load_bundle(config.bundle)
    if (fingerprint := bundle.fingerprint.hex()) != config.bundle_fingerprint:
        raise other_bundle("bundle", fingerprint, config.bundle_fingerprint)
    return Codec(bundle, device=config.device, max_pixels=config.max_pixels)


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
