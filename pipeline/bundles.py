"""Bundles of models from any storage."""

from bls import bundle
from bls.bundle import Bundle
from pipeline.storage import absolute, open_folder


def load_bundle(uri: str | None) -> Bundle:
    """Read and verify the bundle at a path or URI; None stands for the one that comes with the package.

    Raises:
        BundleError: as `bls.bundle.load_bundle`.
    """
    if uri is None or "://" not in absolute(uri):
        return bundle.load_bundle(uri and absolute(uri))
    folder = open_folder(uri)
    return bundle.read_bundle(folder.read, str(folder))
