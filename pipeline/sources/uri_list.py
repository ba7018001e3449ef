"""Lists of images: a text file with a URI in each line, and URIs wherever else they are listed."""

import posixpath
from collections import Counter
from collections.abc import Iterator

import pyarrow as pa

from pipeline.sources.reference import ImageReference, Sample, file_name, utf8
from pipeline.storage.folder import Folder
from pipeline.storage.opening import open_folder
from pipeline.storage.secrets import without_credentials
from pipeline.storage.uris import absolute


class ListedUris:
    """URIs of images as a list in a folder names them: relative ones are below it."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def resolve(self, entry: str) -> str:
        """Return the URI of an entry."""
        if "://" in entry or entry.startswith("/"):
            return absolute(entry)
        scheme, separator, path = str(self._folder).rpartition("://")
        return f"{scheme}{separator}{posixpath.normpath(f'{path}/{entry}')}"

    def key(self, uri: str) -> str:
        """Return a URI's path below the folder, or, if it is elsewhere, the URI without its scheme."""
        uri = without_credentials(uri)
        below = uri.removeprefix(f"{self._folder}/")
        return below if below != uri else uri.rpartition("://")[2].lstrip("/")

    def read(self, uri: str) -> bytes:
        """Read the file of a URI."""
        below = uri.removeprefix(f"{self._folder}/")
        if below != uri:  # the folder may have credentials, which its name has not
            return self._folder.read(below)
        above, _, name = uri.rpartition("/")
        return open_folder(above or "/").read(name)


class ListSource:
    """The files that a text file names, one URI in a line; blank lines and those that begin with # are left out."""

    carried: pa.DataType | None = None

    def __init__(self, folder: Folder, name: str) -> None:
        self._folder = folder
        self._name = name
        self._uris = ListedUris(folder)
        self.skipped: Counter[str] = Counter()

    def __str__(self) -> str:
        return f"{self._folder}/{self._name}"

    def references(self) -> Iterator[ImageReference]:
        """List the images in the order of the lines.

        Raises:
            ValueError: a line is not UTF-8, or has a password, which would be written into the output.
        """
        with self._folder.open(self._name) as file:
            for number, line in enumerate(file, 1):
                entry = self._entry(line, number)
                if entry and not entry.startswith("#"):
                    uri = self._uris.resolve(entry)
                    key = utf8(self._uris.key(uri))
                    yield ImageReference(key=key, source_uri=utf8(uri), stem=key)

    def read(self, reference: ImageReference) -> bytes:
        """Read the encoded bytes of an image."""
        return self._uris.read(file_name(reference.source_uri))

    def read_sample(self, reference: ImageReference) -> Sample:
        """Read an image; nothing is carried beside it."""
        return Sample(self.read(reference))

    def _entry(self, line: bytes, number: int) -> str:
        try:
            entry = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError as error:
            raise ValueError(f"line {number} of {self} is not UTF-8 ({error}): expected a URI in each line") from error
        if without_credentials(entry) != entry:
            raise ValueError(
                f"line {number} of {self} has a user, password or signature: give credentials by the environment, as "
                "fsspec reads them"
            )
        return entry
