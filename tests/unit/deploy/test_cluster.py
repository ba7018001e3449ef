"""The cluster launcher's files, by Ray's own checks, and what Ray does not check."""

import copy
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[3]
CLUSTERS = sorted((ROOT / "deploy" / "cluster").glob("*.yaml"))

each_cluster = pytest.mark.parametrize("path", CLUSTERS, ids=lambda path: path.stem)


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def check(config: Any) -> Any:
    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return prepared


def test_there_are_files_for_two_clouds() -> None:
    assert [load(path)["provider"]["type"] for path in CLUSTERS] == ["aws", "gcp"]


@each_cluster
def test_ray_takes_the_file(path: Path) -> None:
    prepared = check(load(path))
    assert prepared["available_node_types"].keys() == load(path)["available_node_types"].keys()
    assert prepared["head_setup_commands"] == prepared["worker_setup_commands"] == []  # Ray's own would install Ray


@each_cluster
def test_a_wrong_field_is_found(path: Path) -> None:
    config = load(path)
    wrong: list[dict[str, Any]] = [
        {"max_worker": 3},
        {"head_node_type": "haed"},
        {"docker": {**config["docker"], "worker_images": "x"}},
        {"max_workers": "8"},
    ]
    for change in wrong:
        with pytest.raises((ValueError, jsonschema.ValidationError)):
            check({**config, **change})


@each_cluster
def test_workers_are_spot_and_the_head_is_not(path: Path) -> None:
    config = load(path)
    types = config["available_node_types"]
    head = types.pop(config["head_node_type"])
    assert head["resources"]["CPU"] == 0
    assert not is_spot(head)
    assert sum(node["max_workers"] for node in types.values()) >= config["max_workers"] > 0
    for node in types.values():
        assert is_spot(node) and node["min_workers"] == 0 and node["resources"]["CPU"] > 0


def is_spot(node: Any) -> bool:
    market = node["node_config"].get("InstanceMarketOptions", {}).get("MarketType") == "spot"
    return market or any(rule.get("preemptible") for rule in node["node_config"].get("scheduling", []))


@each_cluster
def test_images_are_those_that_the_dockerfile_builds(path: Path) -> None:
    docker = load(path)["docker"]
    images = [value for key, value in docker.items() if key.endswith("image")]
    assert images and all(re.fullmatch(r"REGISTRY/bls-codec:(cpu|gpu)", image) for image in images)
    types = load(path)["available_node_types"].values()
    needs_gpu = any(node["resources"].get("GPU") for node in types)
    assert needs_gpu == docker.get("worker_image", "").endswith(":gpu")


@each_cluster
def test_nodes_want_the_token_that_they_are_given(path: Path) -> None:
    config = load(path)
    assert "--env RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    assert config["file_mounts"] == {"~/.ray/auth_token": "~/.ray/auth_token"}
    assert "ray get-auth-token --generate" in (ROOT / "deploy" / "README.md").read_text()


@each_cluster
def test_the_readme_names_the_file(path: Path) -> None:
    assert f"ray up {path.relative_to(ROOT)}" in (ROOT / "deploy" / "README.md").read_text()
