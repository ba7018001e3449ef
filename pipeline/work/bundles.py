"""Bundles of models from any storage."""

from bls import bundle
from bls.bundle import Bundle
from bls.network import FittedNetwork
from pipeline.storage.opening import open_folder
from pipeline.storage.uris import absolute


def load_bundle(uri: str | None, *, quality: float | None = None) -> Bundle:
    """Read and verify the bundle at a path or URI, or the network of one quality; None stands for the shipped one.

    Raises:
        BundleError: as `bls.bundle.load_bundle`.
    """
    if uri is None or "://" not in absolute(uri):
        return bundle.load_bundle(uri and absolute(uri), quality=quality)
    folder = open_folder(uri)
    return bundle.read_bundle(folder.read, str(folder), quality=quality)


def load_network(uri: str | None, quality: float) -> FittedNetwork:
    """Read and verify the network of a bundle that serves a quality.

    Raises:
        BundleError: as `load_bundle`.
    """
    return load_bundle(uri, quality=quality).network(quality)
