import socket
from pathlib import Path

import pytest

from pipeline.reachable import check_cluster


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


@pytest.fixture
def last_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file that names the cluster that was last started here."""
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    (tmp_path / "ray").mkdir()
    return tmp_path / "ray" / "ray_current_cluster"


def test_an_address_where_nothing_answers_is_named() -> None:
    address = f"127.0.0.1:{closed_port()}"
    with pytest.raises(ConnectionError, match=f"no Ray cluster at RAY_ADDRESS={address} .*or unset RAY_ADDRESS"):
        check_cluster(address)


@pytest.mark.parametrize("address", [None, "auto"])
def test_a_dead_cluster_of_this_machine_is_named_with_its_file(address: str | None, last_started: Path) -> None:
    check_cluster(address)
    last_started.write_text(f"127.0.0.1:{closed_port()}\n")
    with pytest.raises(ConnectionError, match=f"which {last_started} names .*delete that file; RAY_ADDRESS=local"):
        check_cluster(address)
    check_cluster("local")


def test_what_answers_is_taken(last_started: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        last_started.write_text(address)
        for given in (None, "auto", address, f"ray://{address}"):
            check_cluster(given)
