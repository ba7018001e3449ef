"""The RayJobs: known fields alone, commands that the jobs take, pods with room for the workers they are for."""

import copy
import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.commands import parse, runs_of_jobs

ROOT = Path(__file__).parents[3]
MANIFESTS = sorted((ROOT / "deploy" / "kuberay").glob("*.yaml"))
CRD = ROOT.parent / "shared" / "data" / "kuberay" / "rayjob_crd.yaml"
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
README = (ROOT / "deploy" / "README.md").read_text()
MEASURED = json.loads((ROOT / "benchmarks" / "results" / "memory.json").read_text())
# What an image of 100 megapixels adds to a worker (docs/benchmarks.md), and what Ray itself takes of a pod.
LARGE_IMAGE_NUM_BYTES, RAY_NUM_BYTES = 2_000_000_000, 2_000_000_000
UNITS = {"": 1, "m": 1e-3, "Mi": 2**20, "Gi": 2**30}

each_manifest = pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)


def load(path: Path) -> Any:
    return read(path.read_text())


def read(text: str) -> Any:
    (document,) = yaml.safe_load_all(text)
    return document


def strict(schema: Any) -> Any:
    """Return a schema of Kubernetes as JSON schema that refuses unknown fields, which Kubernetes would drop."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: strict(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        result.setdefault("additionalProperties", False)
    if schema.get("x-kubernetes-int-or-string"):
        result["type"] = ["integer", "string"]
    if schema.get("nullable"):
        result["type"] = [schema["type"], "null"]
    return result


@pytest.fixture(scope="module")
def validator() -> Any:
    if not CRD.exists():
        pytest.skip(f"{CRD.name}, the definition of RayJob of ray-project/kuberay, is not there")
    definition = yaml.load(CRD.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    (schema,) = (v["schema"]["openAPIV3Schema"] for v in definition["spec"]["versions"] if v["name"] == "v1")
    schema = strict(schema)
    schema["properties"]["metadata"] = {"type": "object"}
    return jsonschema.Draft202012Validator(schema)


def job_and_arguments(manifest: Any) -> tuple[str, list[str]]:
    (run,) = runs_of_jobs(manifest["spec"]["entrypoint"])
    return run


def config_of(manifest: Any) -> Any:
    return parse(*job_and_arguments(manifest))


def quantity(value: object) -> float:
    match = re.fullmatch(r"([\d.]+)(\D*)", str(value))
    assert match and match[2] in UNITS, value
    return float(match[1]) * UNITS[match[2]]


def head(manifest: Any) -> Any:
    return manifest["spec"]["rayClusterSpec"]["headGroupSpec"]


def worker_groups(manifest: Any) -> Any:
    return manifest["spec"]["rayClusterSpec"]["workerGroupSpecs"]


def container(group: Any) -> Any:
    (only,) = group["template"]["spec"]["containers"]
    return only


def requests(group: Any) -> dict[str, float]:
    return {name: quantity(value) for name, value in container(group)["resources"]["requests"].items()}


def workers(config: Any) -> Any:
    """Return the options about workers, which a train job has among its own."""
    return getattr(config, "cluster", config)


def gpus_per_worker(config: Any) -> float:
    return float(config.use_gpu if hasattr(config, "use_gpu") else config.cluster.gpus_per_worker)


def num_workers_per_pod(config: Any, group: Any) -> int:
    """Return for how many workers Ray finds room in a pod."""
    room = requests(group)
    num_workers = room["cpu"] / workers(config).cpus_per_worker
    if gpus := gpus_per_worker(config):
        num_workers = min(num_workers, room.get("nvidia.com/gpu", 0) / gpus)
    return int(num_workers)


def lack_of_room(manifest: Any) -> list[str]:
    """Tell where the pods of a manifest are too small, or too many or too few, for the workers of its job."""
    config = config_of(manifest)
    lacking = []
    for group in worker_groups(manifest):
        in_pod = num_workers_per_pod(config, group)
        worker_num_bytes = 1e6 * MEASURED["50000_images_worker_peak_mb"] + LARGE_IMAGE_NUM_BYTES
        if in_pod < 1:
            lacking.append("worker")
        if requests(group)["memory"] < RAY_NUM_BYTES + in_pod * worker_num_bytes:
            lacking.append("memory")
        if workers(config).num_workers != in_pod * group["maxReplicas"]:
            lacking.append("number of workers")
    driver_num_bytes = 1e6 * MEASURED["50000_images_driver_peak_mb"]
    if requests(head(manifest))["memory"] < RAY_NUM_BYTES + driver_num_bytes:
        lacking.append("head")
    return lacking


def test_there_are_manifests_of_these_jobs() -> None:
    jobs = {job_and_arguments(load(path))[0] for path in MANIFESTS}
    assert jobs == {"compress_dataset", "decompress_dataset", "train"}
    names = [load(path)["metadata"]["name"] for path in MANIFESTS]
    assert len(set(names)) == len(names)


@each_manifest
def test_kubernetes_knows_every_field(path: Path, validator: Any) -> None:
    assert [f"{e.json_path}: {e.message}" for e in validator.iter_errors(load(path))] == []
    assert load(path)["apiVersion"] == "ray.io/v1"


def with_all_options(text: str) -> str:
    """Return a manifest with the lines taken in that are commented out: a key, with a value of one word or none."""
    option = r"^( *)# ((?:  )*(?:- )?[a-z][\w./-]*:(?: [^\s#]+)?(?: # .*)?)$"
    return re.sub(option, r"\1\2", text, flags=re.MULTILINE)


@each_manifest
def test_what_is_commented_out_can_be_taken_in(path: Path, validator: Any) -> None:
    text = with_all_options(path.read_text())
    manifest = read(text)
    assert [f"{e.json_path}: {e.message}" for e in validator.iter_errors(manifest)] == []
    (worker,) = (group["template"]["spec"] for group in worker_groups(manifest))
    head_pod = head(manifest)["template"]["spec"]
    for pod in (head_pod, worker):
        assert pod["imagePullSecrets"] == [{"name": "bls-registry"}] and pod["serviceAccountName"] == "bls-codec"
    assert worker["nodeSelector"] == {
        "kubernetes.io/arch": "amd64",
        "eks.amazonaws.com/capacityType": "SPOT",
        "karpenter.sh/capacity-type": "spot",
        "cloud.google.com/gke-spot": "true",
        "kubernetes.azure.com/scalesetpriority": "spot",
    }
    assert head_pod["nodeSelector"] == {
        "kubernetes.io/arch": "amd64",
        "eks.amazonaws.com/capacityType": "ON_DEMAND",
        "karpenter.sh/capacity-type": "on-demand",
        "cloud.google.com/gke-provisioning": "standard",
    }
    taints = {toleration["key"] for toleration in worker["tolerations"]} - {"nvidia.com/gpu"}
    assert taints == {"kubernetes.azure.com/scalesetpriority", "cloud.google.com/gke-spot"}


@each_manifest
def test_the_head_stays_where_it_is(path: Path) -> None:
    annotations = head(load(path))["template"]["metadata"]["annotations"]
    assert annotations["karpenter.sh/do-not-disrupt"] == "true"
    assert annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"


def put(manifest: Any, keys: list[Any], value: Any) -> Any:
    changed = copy.deepcopy(manifest)
    at = changed
    for key in keys[:-1]:
        at = at[key]
    at[keys[-1]] = value
    return changed


HEAD_POD = ["spec", "rayClusterSpec", "headGroupSpec", "template", "spec"]


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (["spec", "shutdownAfterJobFinish"], True),
        (["spec", "backoffLimit"], "3"),
        (["spec", "rayClusterSpec", "autoscalerOptions", "upscalingMode"], "Fast"),
        (["spec", "rayClusterSpec", "headGroupSpec", "rayStartParams", "num-cpus"], 0),
        ([*HEAD_POD, "container"], []),
        ([*HEAD_POD, "containers", 0, "resources", "request"], {"cpu": 1}),
        ([*HEAD_POD, "containers", 0, "resources", "requests", "cpu"], "one"),
        ([*HEAD_POD, "containers", 0, "envFrom", 0, "secretRef", "key"], "bls-storage"),
    ],
)
def test_a_wrong_field_is_found(keys: list[Any], value: Any, validator: Any) -> None:
    manifest = load(MANIFESTS[0])
    assert validator.is_valid(manifest)
    assert not validator.is_valid(put(manifest, keys, value))


@each_manifest
def test_the_command_is_one_that_the_image_runs(path: Path) -> None:
    manifest = load(path)
    entrypoint = manifest["spec"]["entrypoint"]
    (folder,) = re.findall(r"^WORKDIR (.*)$", DOCKERFILE, re.MULTILINE)
    program, python, job = shlex.split(entrypoint)[:3]
    assert (python, (ROOT / job).exists()) == ("python", True)
    assert program == f"{folder}/deploy/accept_quarantined.sh"
    # KubeRay puts the text into a shell command of its own: what a shell reads otherwise would end up there.
    assert not re.search(r"[|&;<>$`\n*{}]", entrypoint)
    assert config_of(manifest) is not None


def test_a_command_that_the_job_does_not_take_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    manifest = load(MANIFESTS[0])
    manifest["spec"]["entrypoint"] += " --gpu 1"
    with pytest.raises(SystemExit):
        config_of(manifest)
    assert "--gpu" in capsys.readouterr().err


@each_manifest
def test_a_job_can_be_tried_again(path: Path) -> None:
    manifest = load(path)
    job, arguments = job_and_arguments(manifest)
    assert "--overwrite" not in arguments  # every try would begin with nothing
    assert manifest["spec"]["backoffLimit"] > 0
    uris = [flag for flag in arguments if "/" in flag]
    assert len(uris) == (3 if job == "train" else 2)
    assert all(uri.startswith("s3://") for uri in uris)  # what a pod writes on its disk ends with it


@each_manifest
def test_a_cluster_grows_and_ends_with_the_job(path: Path) -> None:
    spec = load(path)["spec"]
    assert spec["shutdownAfterJobFinishes"] and spec["ttlSecondsAfterFinished"] > 0
    assert spec["rayClusterSpec"]["enableInTreeAutoscaling"]
    assert [group["minReplicas"] for group in worker_groups(load(path))] == [0]


@each_manifest
def test_pods_have_room_for_the_workers(path: Path) -> None:
    manifest = load(path)
    assert lack_of_room(manifest) == []
    assert head(manifest)["rayStartParams"]["num-cpus"] == "0"
    for group in worker_groups(manifest):
        resources = container(group)["resources"]
        assert resources["requests"] == resources["limits"]  # Ray counts the limits, the scheduler the requests
        assert ("nvidia.com/gpu" in resources["limits"]) == (gpus_per_worker(config_of(manifest)) > 0)


@pytest.mark.parametrize(
    ("change", "lacking"),
    [
        ({"cpu": "2"}, {"worker", "number of workers"}),
        ({"memory": "4Gi"}, {"memory"}),
        ({"nvidia.com/gpu": "0"}, {"worker", "number of workers"}),
        ({"cpu": "70", "nvidia.com/gpu": "8", "memory": "512Gi"}, {"number of workers"}),
    ],
)
def test_pods_that_are_too_small_are_found(change: dict[str, str], lacking: set[str]) -> None:
    manifest = load(ROOT / "deploy" / "kuberay" / "compress.yaml")
    container(worker_groups(manifest)[0])["resources"]["requests"].update(change)
    assert set(lack_of_room(manifest)) == lacking


@pytest.mark.parametrize("name", ["train", "train_cpu"])
def test_training_pods_can_read_images_beside_their_worker(name: str) -> None:
    manifest = load(ROOT / "deploy" / "kuberay" / f"{name}.yaml")
    config = config_of(manifest)
    for group in worker_groups(manifest):
        assert requests(group)["cpu"] >= num_workers_per_pod(config, group) * workers(config).cpus_per_worker + 1
        assert 0.3 * requests(group)["memory"] >= config.max_cached_gib * 2**30


@each_manifest
def test_versions_are_those_of_the_image(path: Path) -> None:
    manifest = load(path)
    assert f"ARG RAY_VERSION={manifest['spec']['rayClusterSpec']['rayVersion']}\n" in DOCKERFILE
    images = {container(group)["image"] for group in (head(manifest), *worker_groups(manifest))}
    device = "gpu" if gpus_per_worker(config_of(manifest)) else "cpu"
    assert images == {f"REGISTRY/bls-codec:{device}"}


@each_manifest
def test_credentials_come_from_a_secret_that_the_readme_makes(path: Path) -> None:
    manifest = load(path)
    for group in (head(manifest), *worker_groups(manifest)):
        (source,) = container(group)["envFrom"]
        assert f"kubectl create secret generic {source['secretRef']['name']} " in README
        assert "env" not in container(group)


@each_manifest
def test_the_readme_names_the_manifest_its_job_and_its_image(path: Path) -> None:
    manifest = load(path)
    device = container(head(manifest))["image"].rpartition(":")[2]
    row = rf"\| `{path.relative_to(ROOT)}` \| `{manifest['metadata']['name']}` \| .* \| `:{device}` \|"
    assert re.search(row, README)


def changed_by_the_readme(path: Path, flag: str) -> Any:
    """Return a manifest as the README's sed command with this flag passes it on."""
    (program,) = (
        p for p in re.findall(r"^sed '(.*)' \$FILE \| kubectl apply -f -$", README, re.MULTILINE) if flag in p
    )
    done = subprocess.run(["sed", program, str(path)], capture_output=True, text=True, check=True)
    return read(done.stdout)


@pytest.mark.parametrize("name", ["compress", "compress_cpu"])
def test_a_trial_writes_nothing_and_needs_no_gpu(name: str) -> None:
    path = ROOT / "deploy" / "kuberay" / f"{name}.yaml"
    config = config_of(changed_by_the_readme(path, "--dry-run"))
    assert config.dry_run and gpus_per_worker(config) == 0  # the sample is compressed on the head
    assert not config_of(load(path)).dry_run


@pytest.mark.parametrize("name", ["compress", "compress_cpu", "decompress"])
def test_quarantined_images_are_tried_again_by_the_readme(name: str) -> None:
    path = ROOT / "deploy" / "kuberay" / f"{name}.yaml"
    assert config_of(changed_by_the_readme(path, "--retry-quarantined")).rerun.retry_quarantined


def test_commands_of_the_readme_name_no_single_manifest() -> None:
    kubectl = re.findall(r"^(?:kubectl|sed '|CLUSTER=).*$", README, re.MULTILINE)
    assert kubectl and [line for line in kubectl if "deploy/kuberay/" in line or "bls-compress" in line] == []
    assert re.search(r"^JOB=bls-compress-cpu FILE=deploy/kuberay/compress_cpu.yaml$", README, re.MULTILINE)
