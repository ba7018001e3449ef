"""Codecs that come with optional packages: tests of them are skipped where a package is not installed."""

import pytest

from pipeline.baselines import missing


def skip_if_missing(codec: str) -> None:
    """Skip a test, with what would run it, where this machine does not have a codec."""
    if reason := missing(codec):
        pytest.skip(reason)
