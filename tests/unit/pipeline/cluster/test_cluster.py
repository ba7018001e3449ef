"""Connecting, and the number of workers, without a Ray; tests/integration has it with one."""

import signal
import socket
import time
from functools import partial

import pytest
import ray

from pipeline.cluster.cluster import Cluster
from pipeline.cluster.connection import ClusterError
from pipeline.cluster.scheduler import Room


@pytest.fixture
def resources(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Return the resources of a Ray that is not there."""
    resources = {"CPU": 8.0, "GPU": 2.0}

    def init(**options: object) -> None:
        signal.signal(signal.SIGTERM, lambda *_: None)  # as Ray does
        if options.get("num_cpus") is not None:
            resources["CPU"] = float(str(options["num_cpus"]))

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "cluster_resources", lambda: resources)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return resources


@pytest.mark.parametrize(
    ("cluster", "num_workers"),
    [
        (Cluster(), 8),
        (Cluster(cpus_per_worker=3), 2),
        (Cluster(gpus_per_worker=1), 2),
        (Cluster(gpus_per_worker=0.25), 8),
        (Cluster(num_workers=3), 3),
        (Cluster(num_workers=2, gpus_per_worker=1, cpus_per_worker=4), 2),
    ],
)
@pytest.mark.usefixtures("resources")
def test_there_are_as_many_workers_as_there_is_room_for(cluster: Cluster, num_workers: int) -> None:
    assert cluster.connect() == Room(num_workers)


@pytest.mark.usefixtures("resources")
def test_what_workers_wait_for_is_no_alarm_on_a_busy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster()
    cluster.connect()
    assert cluster.waits_for == "this machine is busy, and the job goes on by itself"
    monkeypatch.setattr("pipeline.cluster.cluster.connect", lambda: True)
    clusters = {"1 free CPU": Cluster(), "2 free CPUs and 1 free GPU": Cluster(cpus_per_worker=2, gpus_per_worker=1)}
    for needs, cluster in clusters.items():
        cluster.connect()
        assert cluster.waits_for == f"waiting for a node with {needs}, as `ray status` shows"


@pytest.mark.parametrize(
    "cluster", [Cluster(cpus_per_worker=9), Cluster(gpus_per_worker=3), Cluster(num_workers=3, gpus_per_worker=3)]
)
@pytest.mark.usefixtures("resources")
def test_no_room_is_an_error_and_no_wait(cluster: Cluster) -> None:
    with pytest.raises(ClusterError, match="--cpus-per-worker or --gpus-per-worker"):
        cluster.connect()


@pytest.mark.parametrize(
    ("cluster", "num_workers", "wanted"),
    [(Cluster(num_workers=50), 8, 50), (Cluster(num_workers=8, cpus_per_worker=3), 2, 8)],
)
@pytest.mark.usefixtures("resources")
def test_more_workers_than_this_machine_has_cpus_are_not_started(
    cluster: Cluster, num_workers: int, wanted: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """They took four times as long as those that fit, and gigabytes of memory."""
    assert cluster.connect() == Room(num_workers)
    told = capsys.readouterr().err.splitlines()
    assert told == [
        "starting Ray on this machine",
        f"{num_workers} workers are started, not {wanted}: more would slow each other down on 8 CPUs and 2 GPUs",
    ]


@pytest.mark.usefixtures("resources")
def test_a_ray_that_runs_is_used_and_left_running(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a notebook whose first cell started it."""
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray was started again"))
    monkeypatch.setattr(ray, "shutdown", lambda: pytest.fail("the user's Ray was shut down"))
    for num_nodes, num_workers in ((1, 8), (2, 50)):
        monkeypatch.setattr(ray, "nodes", partial(range, num_nodes))
        with Cluster(num_workers=50) as cluster:
            assert cluster.connect() == Room(num_workers)


def test_a_cluster_may_get_room_later(resources: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
    resources.update(CPU=0.0, GPU=0.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{server.getsockname()[1]}")
        assert Cluster(num_workers=3, gpus_per_worker=1).connect() == Room(3)
        with pytest.raises(ClusterError, match="set --num-workers to wait for nodes that join"):
            Cluster().connect()


def test_workers_follow_the_nodes_unless_their_number_was_asked_for(
    resources: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Cluster().connect() == Room(8, can_grow=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{server.getsockname()[1]}")
        cluster, of_three = Cluster(cpus_per_worker=2), Cluster(num_workers=3)
        assert cluster.connect() == Room(4, can_grow=True)
        assert of_three.connect() == Room(3, can_grow=False)
        resources.update(CPU=12.0)
        assert cluster.num_workers_now() == 6
        assert cluster.connect() == Room(4, can_grow=True)  # as it was at first


@pytest.mark.usefixtures("resources")
@pytest.mark.parametrize("address", ["127.0.0.1:{}", "ray://127.0.0.1:{}"])
def test_a_cluster_that_is_not_there_is_told_at_once(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setenv("RAY_ADDRESS", address.format(port))
    start = time.monotonic()
    with pytest.raises(ClusterError, match=f":{port} .*unset RAY_ADDRESS"):
        Cluster().connect()
    assert time.monotonic() - start < 5


@pytest.mark.usefixtures("resources")
def test_ray_starts_when_a_job_connects_and_signals_are_as_before_when_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = []
    monkeypatch.setattr(ray, "shutdown", lambda: ended.append(True))
    before = signal.getsignal(signal.SIGTERM)
    with Cluster(num_workers=1) as cluster:
        room = cluster.connect()
        assert cluster.connect() is room
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert ended == [True] and signal.getsignal(signal.SIGTERM) is before
