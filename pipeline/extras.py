"""Packages that only some jobs need: checked before hours of work, not after."""

import importlib.util


def check_installed(*packages: str, extra: str, what: str) -> None:
    """Check that the packages of an extra are installed; `what` is what they are needed for.

    Raises:
        ValueError: one is missing.
    """
    for name in packages:
        if importlib.util.find_spec(name) is None:
            raise ValueError(f"{name} is required for {what}: pip install 'bls-codec[{extra}]'")
