"""Where images come from: references to them, in a stable order, and their bytes.

How `open_source` reads a URI, in this order; a folder of that name wins over stars, braces and endings:

    photos/                    files with the name of an image; if there are none, the tars or Parquet files in it
    photos/**/*.jpg            files that match, and files in folders that match
    {000..099}.tar, *.tar      WebDataset tars (pipeline/sources/tar.py)
    data.parquet, *.parquet    Parquet files with a column of images, or of their URIs (pipeline/sources/parquet.py)
    uris.txt                   a list of URIs (pipeline/sources/uri_list.py)
    photo.jpg                  one image (pipeline/sources/one_file.py)
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

from pipeline.sources.folder import FolderSource, open_archives
from pipeline.sources.globs import Glob, expand_braces, has_magic, split_magic
from pipeline.sources.one_file import OneFileSource
from pipeline.sources.reference import IMAGE_EXTENSIONS, Columns, Source
from pipeline.sources.tar import SEVERAL_IMAGES
from pipeline.sources.union import UnionSource
from pipeline.sources.uri_list import ListSource
from pipeline.storage.opening import open_folder
from pipeline.storage.secrets import redact, without_credentials
from pipeline.storage.uris import absolute, overlaps

_ARCHIVES = (".tar", ".parquet")


def open_sources(uris: Sequence[str], columns: Columns | None = None) -> Source:
    """Return the source of all images of several URIs.

    Raises:
        ValueError: as `open_source`.
    """
    sources = [open_source(uri, columns) for uri in uris]
    return sources[0] if len(sources) == 1 else UnionSource(sources)


def open_source(uri: str, columns: Columns | None = None) -> Source:
    """Return the source that a URI names; nothing is listed yet.

    Raises:
        ValueError: the URI names nothing that can be read as a set of images.
    """
    uri, columns = absolute(uri).rstrip("/") or "/", columns or Columns()
    folder = open_folder(uri)
    if folder.exists():
        return FolderSource(folder, columns)
    if has_magic(uri):
        return _open_glob(uri, columns)
    above, _, name = uri.rpartition("/")
    ending = PurePosixPath(name).suffix.lower()
    if ending in (*_ARCHIVES, ".txt", *IMAGE_EXTENSIONS):
        folder = open_folder(above or "/")
        if folder.holds(name):
            if ending in _ARCHIVES:
                return open_archives(folder, [name], columns)
            return ListSource(folder, name) if ending == ".txt" else OneFileSource(folder, name)
    raise ValueError(
        f"input {redact(uri)} is not there, or does not hold images: expected a folder of images, a pattern with "
        "stars, a .tar or .parquet file, a list of URIs in a .txt file, or an image file"
    )


def no_images(source: Source) -> ValueError:
    """Return the error of an input in which nothing has the name of an image."""
    several = [reason for reason in source.skipped if reason.startswith(SEVERAL_IMAGES)]
    if several:
        return ValueError(
            f"input {source} has {several[0]}: choose one with --image-column, "
            f"as --image-column {several[0].rpartition(' ')[2]}"
        )
    if source.skipped.get(".arrow"):  # as `save_to_disk` of Hugging Face datasets writes it
        folder = open_folder(str(source))
        split = "['train']" if folder.holds("dataset_dict.json") else ""
        return ValueError(
            f"input {source} has no images, but Arrow files, as save_to_disk writes them"
            f"{' for each split' if split else ''}: export it first with\n"
            f"python -c \"import datasets; datasets.load_from_disk({str(source)!r}){split}.to_parquet('data.parquet')\""
        )
    return ValueError(f"input {source} has no images: expected files with names like photo.jpg or photo.png")


def check_apart(output: str, *inputs: str) -> None:
    """Refuse an output that overlaps an input: a job would take its own files for images, or put them among them.

    Raises:
        ValueError: names both.
    """
    for uri in map(absolute, inputs):
        folder, pattern = (uri, None) if open_folder(uri).exists() or not has_magic(uri) else split_magic(uri)
        if not overlaps(folder, output) or (pattern is not None and _is_beside(folder, pattern, output)):
            continue
        raise ValueError(
            f"output {redact(output)} overlaps the input {redact(uri)}: "
            "use an --output that is neither inside of the input nor around it"
        )


def _is_beside(folder: str, pattern: str, output: str) -> bool:
    """Return whether an output below the folder of a pattern is a place where the pattern looks for nothing."""
    above, below = absolute(folder).rstrip("/") + "/", absolute(output).rstrip("/")
    return below.startswith(above) and not Glob(list(expand_braces(pattern))).enters(below.removeprefix(above))


def _open_glob(uri: str, columns: Columns) -> Source:
    base, pattern = split_magic(uri)
    folder = open_folder(base)
    if not folder.exists():
        raise ValueError(f"input {redact(uri)} has no folder {folder}: expected a pattern below a folder that is there")
    patterns = list(expand_braces(pattern))
    endings = {PurePosixPath(each).suffix.lower() for each in patterns}
    if endings not in ({".tar"}, {".parquet"}):
        return FolderSource(folder, columns, Glob(patterns), uri=without_credentials(uri))
    if any("*" in each for each in patterns):
        glob, left_out = Glob(patterns), Counter[str]()

        def leave_out(name: str, reason: str) -> None:
            left_out[reason] += _has_ending(name, endings, glob)

        walked = folder.walk(glob.enters, leave_out)
        names = [name for each in walked for name in each if _has_ending(name, endings, glob)]
        if not names:
            raise ValueError(f"input {redact(uri)} matches no file: expected {endings.pop()} files below {folder}")
        return open_archives(folder, names, columns, uri=without_credentials(uri), left_out=left_out)
    return open_archives(folder, patterns, columns, uri=without_credentials(uri))


def _has_ending(name: str, endings: set[str], glob: Glob) -> bool:
    return PurePosixPath(name).suffix.lower() in endings and glob.matches(name)
