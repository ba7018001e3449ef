"""Reading with Ray Data where that needs no cluster; tests/integration/test_reading.py has the rest."""

import os
import socket
import subprocess
import sys
from pathlib import Path


def test_a_dead_cluster_is_an_error_at_once(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text(f"127.0.0.1:{port}")
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-c", "import pipeline; pipeline.read_compressed('nowhere')"],
        env={**environment, "RAY_TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert f"ConnectionError: no Ray cluster at 127.0.0.1:{port}, which" in done.stderr, done.stderr
