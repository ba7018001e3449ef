"""Where results of benchmarks are written, with what they need beside them."""

import json
from pathlib import Path
from typing import Any

from pipeline.provenance import provenance

RESULTS = Path(__file__).parent / "results"


def write_result(name: str, result: dict[str, Any]) -> Path:
    """Write a result with its provenance to benchmarks/results/NAME.json."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({**provenance(), **result}, indent=2) + "\n")
    return path
