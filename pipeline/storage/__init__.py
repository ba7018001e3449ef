"""Files of any file system: list, read, write at once or not at all, delete."""

from pipeline.storage.folder import Folder
from pipeline.storage.opening import open_folder
from pipeline.storage.secrets import redact
from pipeline.storage.uris import absolute

__all__ = ["Folder", "absolute", "open_folder", "redact"]
