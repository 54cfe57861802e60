"""The files under cluster/, against Ray's own validator, KubeRay's schema, and what configs ask for."""

import copy
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from bb3x_ray.config_file import load_config

ROOT = Path(__file__).parents[1]
CLUSTER = ROOT / "cluster"


@pytest.fixture
def launcher() -> Any:
    return yaml.safe_load((CLUSTER / "launcher.yaml").read_text())


@pytest.fixture
def rayjob() -> Any:
    documents = yaml.safe_load_all((CLUSTER / "rayjob.yaml").read_text())
    return next(d for d in documents if d["kind"] == "RayJob")


@pytest.fixture(scope="session")
def schema(shared_data: Path) -> Any:
    crd = yaml.load((shared_data / "kuberay" / "ray.io_rayjobs.yaml").read_text(), Loader=yaml.CSafeLoader)
    version = next(v for v in crd["spec"]["versions"] if v["name"] == "v1")
    return plain(version["schema"]["openAPIV3Schema"])


def plain(schema: Any) -> Any:
    """JSON Schema out of Kubernetes' dialect: without its extensions, and strict about unknown keys."""
    if isinstance(schema, list):
        return [plain(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found = {k: plain(v) for k, v in schema.items() if not str(k).startswith("x-kubernetes-")}
    open_ = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object" and not open_:
        found["additionalProperties"] = False
    return found


def problems(document: Any, schema: Any) -> list[str]:
    return [e.message for e in jsonschema.Draft7Validator(schema).iter_errors(document)]


# Ray's cluster launcher


def test_the_launcher_file_passes_rays_validator(launcher: Any) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(launcher))


def test_rays_validator_would_find_a_mistake(launcher: Any) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    with pytest.raises(jsonschema.ValidationError):
        validate_config(prepare_config({**launcher, "max_wrokers": 4}))


def test_the_launcher_scales_gpu_machines_from_none(launcher: Any) -> None:
    worker = launcher["available_node_types"]["gpu_worker"]
    assert worker["min_workers"] == 0 < worker["max_workers"] <= launcher["max_workers"]
    assert worker["resources"]["GPU"] > 0
    assert launcher["available_node_types"][launcher["head_node_type"]]["resources"].get("GPU", 0) == 0


def test_the_launcher_installs_what_is_pinned(launcher: Any) -> None:
    commands = "\n".join(launcher["setup_commands"])
    assert "-c constraints.txt -e ." in commands
    assert "--no-deps -r embedded.txt" in commands
    assert launcher["file_mounts"]["/home/ubuntu/bb3x-ray"] == "."
    for name in ("constraints.txt", "embedded.txt"):
        assert (ROOT / name).is_file()


def test_the_launchers_cluster_holds_what_its_config_asks_for(launcher: Any) -> None:
    worker = launcher["available_node_types"]["gpu_worker"]
    assert gpus_asked("cluster") <= worker["max_workers"] * worker["resources"]["GPU"]


# KubeRay


def test_the_rayjob_is_valid_by_the_crd(rayjob: Any, schema: Any) -> None:
    assert problems(rayjob, schema) == []


@pytest.mark.parametrize(
    "where, key",
    [
        (("spec",), "entryPoint"),
        (("spec", "rayClusterSpec"), "enableAutoscaling"),
        (("spec", "rayClusterSpec", "workerGroupSpecs", 0), "maxReplica"),
        (("spec", "rayClusterSpec", "headGroupSpec", "template", "spec", "containers", 0), "volumeMount"),
    ],
)
def test_an_unknown_key_is_found_at_any_depth(
    rayjob: Any, schema: Any, where: tuple[str | int, ...], key: str
) -> None:
    changed = copy.deepcopy(rayjob)
    place = changed
    for part in where:
        place = place[part]
    place[key] = "x"
    assert any(key in problem for problem in problems(changed, schema))


def test_a_wrong_type_is_found(rayjob: Any, schema: Any) -> None:
    changed = copy.deepcopy(rayjob)
    changed["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["maxReplicas"] = "four"
    assert problems(changed, schema)


def test_the_job_runs_the_cluster_config_and_scales(rayjob: Any) -> None:
    spec = rayjob["spec"]
    command, _, overrides = spec["entrypoint"].partition(" rounds=")
    assert command == "bb3x run --config configs/cluster.yaml"
    config = load_config(ROOT / command.split()[-1], f"rounds={overrides}".split())
    assert config.talk.people == "simulated" and config.canary.share == 0  # nobody else is there
    cluster = spec["rayClusterSpec"]
    assert cluster["enableInTreeAutoscaling"] is True
    group = cluster["workerGroupSpecs"][0]
    assert group["minReplicas"] < group["maxReplicas"]
    assert gpus_asked("cluster") <= group["maxReplicas"] * int(group["rayStartParams"]["num-gpus"])
    assert cluster["headGroupSpec"]["rayStartParams"]["num-gpus"] == "0"


def test_every_pod_mounts_the_storage_root_and_the_head_shows_the_server(rayjob: Any) -> None:
    cluster = rayjob["spec"]["rayClusterSpec"]
    config = load_config(ROOT / "configs" / "cluster.yaml")
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for pod in (group["template"]["spec"] for group in groups):
        mounts = {m["mountPath"]: m["name"] for m in pod["containers"][0]["volumeMounts"]}
        assert mounts["/mnt/bb3x"] == "store"
        assert config.storage.root.startswith("/mnt/bb3x/")
        claims = {v["name"]: v.get("persistentVolumeClaim") for v in pod["volumes"]}
        assert claims["store"] == {"claimName": "bb3x-store"}
    head = cluster["headGroupSpec"]["template"]["spec"]["containers"][0]
    assert config.serve.port in [port["containerPort"] for port in head["ports"]]
    assert config.serve.host == "0.0.0.0"


def test_ray_is_the_same_everywhere(rayjob: Any) -> None:
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line)
    assert rayjob["spec"]["rayClusterSpec"]["rayVersion"] == pins["ray"]


def test_the_image_is_not_root_and_installs_what_is_pinned() -> None:
    lines = (CLUSTER / "Dockerfile").read_text()
    assert "FROM python:3.11-slim" in lines
    users = [line.split()[1] for line in lines.splitlines() if line.startswith("USER ")]
    assert users and users[-1] != "root"
    assert "-c constraints.txt" in lines and "--no-deps -r embedded.txt" in lines


def gpus_asked(name: str) -> float:
    """Of the cluster at once: the server stays while training, and evaluation, come and go."""
    config = load_config(ROOT / "configs" / f"{name}.yaml")
    server = config.serve.num_replicas * config.serve.num_gpus
    return server + max(config.train.workers * config.train.gpus_per_worker, config.evaluate.num_gpus)
