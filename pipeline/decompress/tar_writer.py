"""Members of a tar archive, the same bytes for the same content: no times, no owners, plain files only."""

import tarfile

from pipeline.storage.uris import check_name

END = bytes(2 * tarfile.BLOCKSIZE)
"""The end of an archive."""


def member(name: str, data: bytes) -> tuple[bytes, ...]:
    """Return the parts of a member; an archive is its members one after another, and END.

    Raises:
        UnsafeNameError: a reader that unpacks the archive would write outside its folder.
    """
    info = tarfile.TarInfo(check_name(name))
    info.size = len(data)
    header = info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")
    return header, data, bytes(-len(data) % tarfile.BLOCKSIZE)
