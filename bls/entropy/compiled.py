"""Whether the machine code of a coder may be kept on disk.

numba keeps what it has compiled for a function until the function's own file changes. What other files contribute, as
inlined functions and as constants, it does not notice: after an update of those alone it would code with the old
machine code. So a coder's file states the hash of the others. Where the hash does not match, the coder is compiled anew
in every process: slower to start, but right. A test demands the current hash, and a new hash is a change of the file.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path


def hash_of_sources(names: Sequence[str]) -> str:
    """Return the SHA-256 of modules of this package, named by their paths in it."""
    digest = hashlib.sha256()
    for name in names:
        digest.update((Path(__file__).parent / name).read_bytes())
    return digest.hexdigest()
