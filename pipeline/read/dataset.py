"""A compressed dataset as its readers see it: the files that markers name. No torch, no Ray."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from pipeline.ledger.bitstream_rows import MADE_COLUMNS, Bitstreams, carried_there
from pipeline.ledger.damage import parsing
from pipeline.ledger.markers import CommittedFile, Marker
from pipeline.ledger.output import Output
from pipeline.ledger.schema import BITSTREAMS, SCHEMA_VERSION
from pipeline.read.selection import Selection, select, stored_keys
from pipeline.status import Status

_WRITERS = ("compress", "recode")  # jobs whose output is a compressed dataset
_FILES_TO_LOOK_AT = 16  # for the members of WebDataset samples, evenly spread


@dataclass(frozen=True)
class StoredFile:
    """Rows of a committed file of bitstreams, in order."""

    shard: int
    file: CommittedFile
    rows: Sequence[int]


class CompressedDataset:
    """The committed part of the output of a compress or recode job.

    Raises:
        ValueError: there is no compressed dataset at the URI, or another release wrote it.
    """

    def __init__(self, uri: str) -> None:
        self.output = Output(uri)
        manifest = self.output.manifest()
        if manifest is None or manifest.job not in _WRITERS:
            raise ValueError(
                f"input {self.output} is not a compressed dataset: expected the --output of jobs/compress_dataset.py"
            )
        with parsing(self.output, "manifest.json"):
            written_with = manifest.settings["schema_version"]
        if written_with != SCHEMA_VERSION:
            raise ValueError(
                f"{self.output} has schema {written_with}, this release reads {SCHEMA_VERSION}: "
                "use the release that wrote it"
            )
        with parsing(self.output, "manifest.json"):
            quality, *names = (manifest.settings[name] for name in ("quality", "model_fingerprint", "coder"))
            if not (isinstance(quality, int | float | None) and all(isinstance(name, str) for name in names)):
                raise ValueError(f"quality is {quality!r}, model_fingerprint and coder {names!r}")
        self.manifest = manifest

    @cached_property
    def markers(self) -> list[Marker]:
        """The markers that count of all committed shards, but for those that were appended since the manifest was read.

        Raises:
            DamagedFileError: one is damaged.
        """
        markers = [marker for marker in self.output.iter_markers() if marker.shard < self.manifest.num_shards]
        for marker in markers:
            with parsing(self.output, f"commits/{marker.name}"):
                _ = marker.files["metrics"], marker.files["bitstreams"]
        return markers

    @property
    def num_left(self) -> int:
        """How many images of the job are not committed yet."""
        return self.manifest.num_images - sum(marker.summary.num_images for marker in self.markers)

    def state(self) -> str:
        """Say that the job is not finished, and what readers see; nothing where it is."""
        if not self.num_left:
            return ""
        job, num_images = self.manifest.job, self.manifest.num_images
        seen = f"{num_images - self.num_left} of {num_images} images are seen"
        return f"the {job} job of {self.output} is not finished: {seen}, {self.num_left} are left to its command"

    @property
    def quality(self) -> float | None:
        """The quality it was compressed with; None if each image has its own."""
        quality: float | None = self.manifest.settings["quality"]
        return quality

    def select(self, *, keys: Collection[str] | None = None, where: str | None = None) -> Selection:
        """Select images, as `pipeline.read.selection.select`."""
        return select(self.output, self.markers, keys=keys, where=where)

    def stored_keys(self) -> Iterator[tuple[int, int, str]]:
        """Read the keys of all images that are not quarantined: shard, row in its file, key."""
        return stored_keys(self.output, self.markers)

    def files(self, selection: Selection) -> list[StoredFile]:
        """Return where the images of a selection are."""
        return [
            StoredFile(marker.shard, marker.files["bitstreams"], selection.rows[marker.shard])
            for marker in self.markers
            if marker.shard in selection.rows
        ]

    def check_columns(self, columns: Sequence[str] | None, files: Sequence[StoredFile], *, num_kept: int) -> None:
        """Refuse columns that no image of these files has, and latents of kept originals, which have none.

        Members of WebDataset samples differ from file to file: some files are looked at.

        Raises:
            ValueError: names those there are.
        """
        if columns is None or not files:
            return
        if "latents" in columns and num_kept:
            raise ValueError(
                f"{num_kept} originals in {self.output} are kept as they are and have no latents: leave them "
                f"out with where=\"status = '{Status.OK}'\", which may be joined to other conditions by AND"
            )
        unknown = set(columns).difference(BITSTREAMS.names, MADE_COLUMNS)
        carried: dict[str, None] = {}
        for file in files[:: -(-len(files) // _FILES_TO_LOOK_AT)]:
            names, are_members = carried_there(Bitstreams.read(self.output.folder, file.file))
            carried |= dict.fromkeys(names)
            if unknown.issubset(carried):
                return
            if not are_members:
                break
        there = ", ".join([*BITSTREAMS.names, *MADE_COLUMNS, *carried])
        names = [name for name in columns if name in unknown and name not in carried]
        raise ValueError(f"{self.output} has no column {', '.join(names)}: expected some of {there}")


def bitstream_files(uri: str) -> list[str]:
    """Return the committed Parquet files of a compressed dataset, for programs that read Parquet themselves.

    Raises:
        ValueError: there is no compressed dataset at `uri`.
    """
    dataset = CompressedDataset(uri)
    return [f"{dataset.output.folder}/{marker.files['bitstreams'].name}" for marker in dataset.markers]
