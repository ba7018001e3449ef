"""The images of several sources as one."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pyarrow as pa

from pipeline.sources.reference import ImageReference, Sample, Source


class UnionSource:
    """The images of several sources one after another; keys begin with the number of the source."""

    carried: pa.DataType | None = None  # the sources would have to agree

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources

    def __str__(self) -> str:
        return ", ".join(map(str, self._sources))

    @property
    def skipped(self) -> Counter[str]:
        """What the last listings left out, by reason."""
        return sum((source.skipped for source in self._sources), Counter())

    def references(self) -> Iterator[ImageReference]:
        """List the images, always in the same order."""
        for number, source in enumerate(self._sources):
            for reference in source.references():
                yield replace(reference, key=f"{number}/{reference.key}", stem=f"{number}/{reference.stem}")

    def read(self, reference: ImageReference) -> bytes:
        """Read the encoded bytes of an image."""
        number, _, key = reference.key.partition("/")
        return self._sources[int(number)].read(replace(reference, key=key, stem=reference.stem.partition("/")[2]))

    def read_sample(self, reference: ImageReference) -> Sample:
        """Read an image alone."""
        return Sample(self.read(reference))
