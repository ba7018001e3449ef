"""Entry points: a config dataclass, `main`, an exit code."""
