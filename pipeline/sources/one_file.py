"""A single image file."""

from collections import Counter
from collections.abc import Iterator

import pyarrow as pa

from pipeline.sources.reference import ImageReference, Sample, file_name, utf8, without_extension
from pipeline.storage.folder import Folder


class OneFileSource:
    """One image file of a folder; its key is its name."""

    carried: pa.DataType | None = None

    def __init__(self, folder: Folder, name: str) -> None:
        self._folder = folder
        self._name = name
        self.skipped: Counter[str] = Counter()

    def __str__(self) -> str:
        return f"{self._folder}/{self._name}"

    def references(self) -> Iterator[ImageReference]:
        """Return the one image."""
        yield ImageReference(utf8(self._name), utf8(str(self)), utf8(without_extension(self._name)))

    def read(self, reference: ImageReference) -> bytes:
        """Read the encoded bytes of the image."""
        return self._folder.read(file_name(reference.key))

    def read_sample(self, reference: ImageReference) -> Sample:
        """Read the image; nothing is carried beside it."""
        return Sample(self.read(reference))
