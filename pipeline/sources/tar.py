"""WebDataset tars: members that share a name up to its first dot are a sample, one of them its image.

A listing reads headers alone, of several tars at once. A sample's members lie side by side, so that a worker reads it
with one request for a range of bytes; what is beside the image is carried as a map from extension to bytes.
"""

import io
import tarfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import IO

import pyarrow as pa

from pipeline.ahead import ahead
from pipeline.images import ImageError
from pipeline.sources.reference import IMAGE_EXTENSIONS, ImageReference, Sample, file_name, utf8
from pipeline.status import Status
from pipeline.storage.folder import Folder

CARRIED_TYPE = pa.map_(pa.string(), pa.binary())
NUM_THREADS = 8  # tars that are listed at once, with their samples in memory
SEVERAL_IMAGES = "samples with several images:"
_DAMAGED = "#damaged"  # behind the name of a tar: the key of what cannot be listed
_ZEROS_NUM_BYTES = 2**20  # behind the end mark that are looked at, at a time


@dataclass
class _Index:
    """The samples of a tar as far as it can be read, and what was left out."""

    references: list[ImageReference] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)


@dataclass
class _Sample:
    """Members that lie side by side and share a name, from the first header to the end of the last content."""

    name: str
    start: int
    end: int
    extensions: list[str]


class TarSource:
    """The samples of tars of a folder; a key is the tar's name without `.tar`, and the name of the sample.

    The image of a sample is the member with the extension `image`, or the only one that can be it: `jpg` before
    `seg.png`.
    """

    def __init__(
        self,
        folder: Folder,
        names: Sequence[str],
        *,
        image: str | None = None,
        uri: str | None = None,
        left_out: Mapping[str, int] | None = None,
    ) -> None:
        self._folder = folder
        self._names = names
        self._image = image
        self._uri = uri or f"{folder}/{names[0]}"
        self.carried = CARRIED_TYPE
        self._left_out = left_out or {}
        self.skipped: Counter[str] = Counter()

    def __str__(self) -> str:
        return self._uri

    def references(self) -> Iterator[ImageReference]:
        """List the samples tar by tar; what cannot be listed of a damaged tar is one reference that cannot be read.

        Raises:
            ValueError: a tar is not there.
        """
        self.skipped = Counter(self._left_out)
        with ThreadPoolExecutor(NUM_THREADS) as executor:
            for index in ahead(executor, self._index, self._names, window=NUM_THREADS):
                self.skipped += index.skipped
                yield from index.references

    def read(self, reference: ImageReference) -> bytes:
        """Read the image of a sample."""
        return self.read_sample(reference).data

    def read_sample(self, reference: ImageReference) -> Sample:
        """Read a sample with one request.

        Raises:
            ImageError: `corrupt`: the tar is damaged here, or changed; `ambiguous`: the sample has two images.
        """
        assert reference.file is not None and reference.start is not None and reference.num_bytes is not None
        if reference.num_bytes == 0:
            raise ImageError(
                Status.CORRUPT,
                f"{reference.file} is damaged, ends without its end mark, or is several tars in one: nothing can be "
                f"listed from byte {reference.start} on",
            )
        data = self._folder.read_range(file_name(reference.file), reference.start, reference.num_bytes)
        members = _members(data, name=reference.key.removeprefix(f"{_stem(reference.file)}/"))
        images = self._images([extension for extension, _ in members])
        if len(data) < reference.num_bytes or not images:
            raise ImageError(Status.CORRUPT, f"{reference.file} was changed after it was listed: begin a new output")
        if len(images) > 1:
            raise ImageError(
                Status.AMBIGUOUS, f"the sample has {len(images)} images ({', '.join(images)}), expected one"
            )
        (image,) = (content for extension, content in members if extension in images)
        return Sample(image, [(extension, content) for extension, content in members if extension not in images])

    def _images(self, extensions: Sequence[str]) -> list[str]:
        """Return the extensions of the members that can be the image of a sample."""
        if self._image is not None:
            return [extension for extension in extensions if extension == self._image]
        whole = [extension for extension in extensions if _is_image(extension)]
        return whole or [extension for extension in extensions if _is_image(extension.rpartition(".")[2])]

    def _index(self, name: str) -> _Index:
        index = _Index()
        try:
            file = self._folder.open(name)
        except FileNotFoundError:
            raise ValueError(f"input {self} names {self._folder}/{name}, which is not there") from None
        with file:
            num_bytes = file.seek(0, io.SEEK_END)
            damaged_at: int | None = None
            for sample in _samples(file, index.skipped):
                if sample.name == "" or sample.end > num_bytes:  # its content is cut off
                    damaged_at = sample.start if damaged_at is None else damaged_at
                elif (images := self._images(sample.extensions)) and (len(images) == 1 or _is_image(images[0])):
                    index.references.append(self._reference(name, sample, images[0]))
                else:
                    index.skipped[_why_skipped(images, index.skipped)] += 1
        if damaged_at is not None:
            key = utf8(f"{_stem(name)}{_DAMAGED}")
            index.references.append(
                ImageReference(key, utf8(f"{self._folder}/{name}#byte={damaged_at}"), key, utf8(name), damaged_at, 0)
            )
        return index

    def _reference(self, name: str, sample: _Sample, image: str) -> ImageReference:
        key = utf8(f"{_stem(name)}/{sample.name}")
        uri = utf8(f"{self._folder}/{name}#{sample.name}.{image}")
        return ImageReference(key, uri, key, utf8(name), sample.start, sample.end - sample.start)


def _why_skipped(images: Sequence[str], reasons: Collection[str]) -> str:
    """Return why a sample with none or several images is left out, naming those of the first of a tar alone."""
    if not images:
        return "samples without an image"
    named = f"{SEVERAL_IMAGES} {', '.join(map(utf8, images))}"
    return next((reason for reason in reasons if reason.startswith(SEVERAL_IMAGES)), named)


def _samples(file: IO[bytes], skipped: Counter[str]) -> Iterator[_Sample]:
    """Group the members of a tar into samples; one without a name stands for what cannot be read from there on."""
    sample: _Sample | None = None
    end = 0
    for member, start, end in _headers(file):
        if member is None:
            if sample is not None:
                yield sample
            yield _Sample("", start, end, [])
            return
        name, extension = _split(member.name)
        if not member.isfile() or _is_hidden(name):
            if not member.isdir():
                skipped["hidden" if member.isfile() else "links and devices in tars"] += 1
            continue
        if sample is not None and sample.name == name:
            sample.extensions.append(extension)
            sample.end = end
        else:
            if sample is not None:
                yield sample
            sample = _Sample(name, start, end, [extension])
    if sample is not None:
        yield sample


def _headers(file: IO[bytes]) -> Iterator[tuple[tarfile.TarInfo | None, int, int]]:
    """List members with where they begin and end; None stands for what is neither a member nor the end of the tar.

    tarfile itself takes a damaged header for the end.
    """
    start = 0
    try:
        file.seek(0)
        with tarfile.open(fileobj=file, mode="r:", encoding="utf-8", errors="surrogateescape") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # it would keep all
                yield member, start, tar.offset
                start = tar.offset
        file.seek(start)
        mark = file.read(tarfile.BLOCKSIZE)
        is_end = len(mark) == tarfile.BLOCKSIZE
        while mark and is_end:
            is_end = not any(mark)
            mark = file.read(_ZEROS_NUM_BYTES)
    except (tarfile.TarError, EOFError, ValueError):
        is_end = False
    if not is_end:
        yield None, start, start


def _members(data: bytes, *, name: str) -> list[tuple[str, bytes]]:
    """Return extension and content of the members of a sample."""
    members = []
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:", encoding="utf-8", errors="surrogateescape") as tar:
            for member in tar:
                sample, extension = _split(member.name)
                if member.isfile() and utf8(sample) == name:
                    content = tar.extractfile(member)
                    assert content is not None
                    members.append((utf8(extension), content.read()))
    except tarfile.TarError:
        return []
    return members


def _split(name: str) -> tuple[str, str]:
    """Split the name of a member at the first dot of its last part."""
    folder, slash, base = name.removeprefix("./").rpartition("/")
    sample, _, extension = base.partition(".")
    return f"{folder}{slash}{sample}", extension


def _is_hidden(name: str) -> bool:
    """Return whether a name begins with a dot, or is a name that WebDataset uses for notes."""
    base = name.rpartition("/")[2]
    return base == "" or name.startswith(".") or "/." in name or (base.startswith("__") and base.endswith("__"))


def _is_image(extension: str) -> bool:
    return f".{extension.lower()}" in IMAGE_EXTENSIONS


def _stem(name: str) -> str:
    return name[: -len(".tar")]
