"""Bundles of models from any storage."""

from bls import bundle
from bls.bundle import Bundle, FittedModel
from pipeline.storage.opening import open_folder
from pipeline.storage.uris import absolute


def load_bundle(uri: str | None, *, quality: int | None = None) -> Bundle:
    """Read and verify the bundle at a path or URI, or one model of it; None stands for the one of the package.

    Raises:
        BundleError: as `bls.bundle.load_bundle`.
    """
    if uri is None or "://" not in absolute(uri):
        return bundle.load_bundle(uri and absolute(uri), quality=quality)
    folder = open_folder(uri)
    return bundle.read_bundle(folder.read, str(folder), quality=quality)


def load_model(uri: str | None, quality: int) -> FittedModel:
    """Read and verify one model of a bundle.

    Raises:
        BundleError: as `load_bundle`.
    """
    return load_bundle(uri, quality=quality).models[quality]
