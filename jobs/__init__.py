"""Entry points: one file per job."""

import importlib.util

if any(importlib.util.find_spec(name) is None for name in ("fsspec", "pyarrow", "ray", "rich")):
    raise ImportError("the jobs need more than the codec: pip install 'bls-codec[datasets]'")
