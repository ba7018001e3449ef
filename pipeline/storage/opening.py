"""From a URI to the folder that it names."""

from pipeline.storage.folder import Folder
from pipeline.storage.local import LocalFolder
from pipeline.storage.remote import RemoteFolder
from pipeline.storage.uris import SCHEME, absolute


def open_folder(uri: str) -> Folder:
    """Return the folder that a URI names, whether it exists or not.

    Raises:
        ValueError: no file system for the URI's scheme, or its package is not installed.
    """
    uri = absolute(uri)
    return LocalFolder(uri) if SCHEME.match(uri) is None else RemoteFolder(uri.rstrip("/"))
