"""Where images come from: references to them in a stable order, and their bytes."""

from pipeline.sources.opening import check_apart, open_source, open_sources
from pipeline.sources.reference import Columns, ImageReference, Source

__all__ = ["Columns", "ImageReference", "Source", "check_apart", "open_source", "open_sources"]
