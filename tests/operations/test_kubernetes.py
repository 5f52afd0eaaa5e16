"""The Kubernetes manifests fit the published schemas and one another."""

import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from redis.asyncio import Redis

from jobs.queue.keys import ModelKeys
from jobs.settings import PREFIX, ApiSettings
from jobs.testing.samples import MODEL, sample_tasks
from tests.operations.expressions import ROOT
from tests.task_queue import TaskQueue

BASE, GPU = ROOT / "deploy/base", ROOT / "deploy/gpu"
OF_OPERATORS = ("keda.sh/", "monitoring.coreos.com/")
"""Their kinds are not Kubernetes' own, and in no schema here."""
VERSION = "1.33"


def documents(folder: Path) -> list[dict[str, Any]]:
    files = sorted(path for path in folder.glob("*.yaml") if path.name != "kustomization.yaml")
    return [document for path in files for document in yaml.safe_load_all(path.read_text())]


def named(kind: str, name: str, folder: Path = BASE) -> dict[str, Any]:
    (found,) = [one for one in documents(folder) if one["kind"] == kind and one["metadata"]["name"] == name]
    return found


def container(name: str, folder: Path = BASE) -> dict[str, Any]:
    kind = "StatefulSet" if name == "redis" else "Deployment"
    (only,) = named(kind, name, folder)["spec"]["template"]["spec"]["containers"]
    return only


@pytest.mark.parametrize("document", documents(BASE), ids=lambda one: f"{one['kind']} {one['metadata']['name']}")
def test_every_manifest_fits_its_schema(document: dict[str, Any]) -> None:
    if not document["apiVersion"].startswith(OF_OPERATORS):
        kubernetes_validate.validate(document, VERSION, strict=True)


@pytest.mark.slow
@pytest.mark.needs("kubectl")
@pytest.mark.parametrize("folder", [BASE, GPU], ids=["base", "gpu"])
def test_what_kustomize_makes_of_a_folder_fits_the_schemas(folder: Path) -> None:
    rendered = subprocess.run(["kubectl", "kustomize", str(folder)], check=True, capture_output=True, text=True).stdout
    made = list(yaml.safe_load_all(rendered))
    assert len(made) == len(documents(BASE)) + 1  # and the settings' ConfigMap
    for document in made:
        if not document["apiVersion"].startswith(OF_OPERATORS):
            kubernetes_validate.validate(document, VERSION, strict=True)


@pytest.mark.parametrize("folder", [BASE, GPU], ids=["base", "gpu"])
def test_the_kustomization_takes_every_file(folder: Path) -> None:
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    taken = {name for name in kustomization["resources"] if name.endswith(".yaml")}
    taken |= {patch["path"] for patch in kustomization.get("patches", [])}
    assert taken == {path.name for path in folder.glob("*.yaml")} - {"kustomization.yaml"}


@pytest.mark.parametrize("name", ["redis", "service", "worker"])
def test_every_pod_is_hardened_bounded_and_probed(name: str) -> None:
    kind = "StatefulSet" if name == "redis" else "Deployment"
    pod, only = named(kind, name)["spec"]["template"]["spec"], container(name)
    assert pod["securityContext"]["runAsNonRoot"]
    assert not pod["automountServiceAccountToken"]
    assert not pod["enableServiceLinks"]
    assert only["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"readinessProbe", "livenessProbe"} <= only.keys()
    assert "memory" in only["resources"]["limits"]


def test_the_scaler_watches_the_stream_that_workers_read() -> None:
    (trigger,) = named("ScaledObject", "worker")["spec"]["triggers"]
    assert trigger["metadata"]["stream"] == ModelKeys("emoji-student").tasks
    assert trigger["metadata"]["streamLength"].isdigit()


async def test_the_length_of_the_stream_is_what_is_left_to_do(redis: Redis) -> None:
    """The scaler's figure, through every way in which a task leaves the queue or returns to it."""
    queue, stream = TaskQueue(redis, MODEL), ModelKeys(MODEL).tasks
    await queue.admit(sample_tasks(4), 64, 60)
    assert await redis.xlen(stream) == 4
    failed, *requeued = await queue.claim("w1", 2, 0)
    await queue.fail(failed, "error", "a fault")
    await queue.requeue(requeued)
    assert await redis.xlen(stream) == sum(await queue.depth()) == 3
    given_up = [task.model_copy(update={"job_id": "f" * 32}) for task in sample_tasks(5)]
    await queue.admit(given_up, 64, 60)
    assert await redis.xlen(stream) == 8
    await queue.cancel("f" * 32, "nobody waits")
    assert await redis.xlen(stream) == sum(await queue.depth()) == 3
    for claim in await queue.claim("w2", 8, 0):
        await queue.bury(claim, "a fault", 60)
    assert await redis.xlen(stream) == 0


def test_the_gpu_overlay_changes_the_worker_and_asks_for_a_gpu() -> None:
    patch, base = named("Deployment", "worker", GPU), named("Deployment", "worker")
    assert patch["metadata"]["name"] == base["metadata"]["name"]
    assert container("worker", GPU)["name"] == container("worker")["name"]
    assert container("worker", GPU)["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert patch["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}, "no GPU is left over"


def test_every_port_of_a_policy_is_one_that_a_container_opens() -> None:
    opened = {port["containerPort"] for name in ("redis", "service", "worker") for port in container(name)["ports"]}
    dns = 53
    for document in documents(BASE):
        if document["kind"] == "NetworkPolicy":
            rules = document["spec"].get("ingress", []) + document["spec"].get("egress", [])
            assert {port["port"] for rule in rules for port in rule["ports"]} <= opened | {dns}


def test_keys_reach_the_api_alone() -> None:
    secrets = {PREFIX + name.upper() for name, field in ApiSettings.model_fields.items() if "Secret" in str(field)}
    service, worker = ({one["name"]: one for one in container(name)["env"]} for name in ("service", "worker"))
    for name in secrets - {"FOURSTEP_REDIS_PASSWORD"}:
        assert service[name]["valueFrom"]["secretKeyRef"]["optional"]
        assert worker[name]["value"] == "", "the settings that both take may have it"
    assert not secrets & {one["name"] for one in container("redis")["env"]}


def test_passwords_stand_on_no_command_line() -> None:
    for name in ("service", "worker", "redis"):
        started = [*container(name).get("command", []), *container(name).get("args", [])]
        assert not any("$(" in part for part in started)
