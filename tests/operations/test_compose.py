"""`docker compose up` without a Docker engine: the files are valid, hardened, and name only settings that exist."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from jobs.settings import PREFIX, ApiSettings, WorkerSettings
from jobs.testing.redis_servers import BUNDLED
from jobs.testing.waiting import block_until
from tests.operations.expressions import ROOT

COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
SETTINGS = {PREFIX + name.upper() for kind in (ApiSettings, WorkerSettings) for name in kind.model_fields}
EXAMPLE = (ROOT / ".env.example").read_text()
GPU = ("-f", "docker/compose.gpu.yaml")


def tool(name: str) -> str:
    """The command that a test dependency brought into this environment."""
    found = shutil.which(name, path=str(Path(sys.executable).parent))
    assert found is not None
    return found


@pytest.mark.parametrize("overlay", [(), GPU], ids=["cpu", "gpu"])
def test_compose_accepts_the_files(overlay: tuple[str, ...]) -> None:
    command = [tool("docker-compose"), "-f", "compose.yaml", *overlay, "config", "-q"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")


def test_scaled_workers_see_every_gpu_and_take_one_each() -> None:
    command = [tool("docker-compose"), "-f", "compose.yaml", *GPU, "config", "--format", "json"]
    rendered = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    worker = json.loads(rendered)["services"]["worker"]
    (device,) = worker["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["count"], device["capabilities"]) == ("nvidia", -1, ["gpu"])
    assert "container_name" not in worker, "it could not be scaled"
    assert "CUDA_VISIBLE_DEVICES" not in worker["environment"]
    (cache,) = [volume["target"] for volume in worker["volumes"] if volume["type"] == "volume"]
    assert worker["environment"]["FOURSTEP_GPU_LOCKS"].startswith(f"{cache}/"), "a folder that all of them share"


def test_what_is_compiled_lies_in_the_volume() -> None:
    """Docker mounts a tmpfs without the right to run code, and code is loaded from where these caches are."""
    dockerfile = (ROOT / "docker/worker.Dockerfile").read_text()
    last = dockerfile.rpartition("FROM ")[2]
    variables = dict(re.findall(r"([A-Z_]+)=(\S+)", last))
    assert re.findall(r"^VOLUME (\S+)$", last, re.MULTILINE) == ["/cache"]
    for name in ("TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "HF_HOME"):
        assert variables[name].startswith("/cache/"), name
    worker = COMPOSE["services"]["worker"]
    assert "cache:/cache" in worker["volumes"]
    assert worker["tmpfs"] == ["/tmp"]
    assert not {"TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR"} & worker["environment"].keys()


def test_hadolint_finds_nothing() -> None:
    files = sorted((ROOT / "docker").glob("*.Dockerfile"))
    assert len(files) == 2
    result = subprocess.run([tool("hadolint"), *map(str, files)], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, "")


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_every_container_is_hardened_and_bounded(name: str) -> None:
    service = COMPOSE["services"][name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["deploy"]["resources"]["limits"]["memory"]
    assert all(str(port).startswith(("127.0.0.1:", "${HTTP_ADDRESS:-127.0.0.1}:")) for port in service.get("ports", []))


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_every_container_says_whether_it_is_well(name: str) -> None:
    service = COMPOSE["services"][name]
    built = "build" in service and (ROOT / service["build"]["dockerfile"]).read_text()
    assert service.get("healthcheck", {}).get("test") or (built and "\nHEALTHCHECK " in built)


def test_only_settings_that_exist_are_set() -> None:
    for path in [ROOT / "compose.yaml", *(ROOT / "docker").glob("*.*"), *(ROOT / "deploy").rglob("*.yaml")]:
        assert set(re.findall(rf"\b{PREFIX}[A-Z0-9_]+", path.read_text())) <= SETTINGS, path


def test_the_example_lists_every_setting_with_its_default() -> None:
    for kind in (ApiSettings, WorkerSettings):
        for name, field in kind.model_fields.items():
            (line,) = re.findall(rf"^# {PREFIX}{name.upper()}=(.*)$", EXAMPLE, re.MULTILINE)
            if name not in OF_THE_CONTAINERS:
                assert line == ("" if field.default in (None, ()) else str(field.default)), name


OF_THE_CONTAINERS = {"redis_url", "host", "port", "api_metrics_port", "metrics_host", "metrics_port", "model"}
"""Settings that the containers set themselves, or need in another form."""


def test_the_example_lists_every_variable_of_compose() -> None:
    for path in (ROOT / "compose.yaml", ROOT / "docker/compose.gpu.yaml"):
        for variable, default in re.findall(r"\$\{([A-Z_]+):?-([^}]*)\}", path.read_text()):
            assert re.search(rf"^# {variable}=", EXAMPLE, re.MULTILINE), variable
            if path.name == "compose.yaml":
                assert f"# {variable}={default}\n" in EXAMPLE


def test_passwords_are_files_and_stand_on_no_command_line() -> None:
    redis, grafana = COMPOSE["services"]["redis"], COMPOSE["services"]["grafana"]
    assert redis["command"][:2] == ["sh", "-ec"]
    assert "exec redis-server - <<" in redis["command"][2]
    assert "requirepass" not in " ".join(redis["command"][:2])
    assert grafana["environment"]["GF_SECURITY_ADMIN_PASSWORD__FILE"] == "/run/secrets/grafana_password"
    assert grafana["environment"]["GF_AUTH_ANONYMOUS_ENABLED"] == "false"
    for name in ("redis", "service", "worker"):
        assert COMPOSE["services"][name]["secrets"] == ["fourstep_redis_password"]
    for secret in COMPOSE["secrets"].values():
        default = re.fullmatch(r"\$\{[A-Z_]+:-(.+)\}", secret["file"])
        assert default
        assert (ROOT / default[1]).read_text().strip()


def test_the_keys_of_the_api_reach_the_api_alone() -> None:
    secrets = {PREFIX + name.upper() for name, field in ApiSettings.model_fields.items() if "Secret" in str(field)}
    assert secrets == {"FOURSTEP_REDIS_PASSWORD", *OF_THE_API}
    for name in OF_THE_API:
        assert COMPOSE["services"]["worker"]["environment"][name] == ""
        assert name not in COMPOSE["services"]["service"]["environment"]
    for name in COMPOSE["services"].keys() - {"service", "worker"}:
        assert "env_file" not in COMPOSE["services"][name]


OF_THE_API = {"FOURSTEP_API_KEYS", "FOURSTEP_WEBHOOKS", "FOURSTEP_WEBHOOK_SECRET"}


@pytest.mark.parametrize("given", ["", "from the environment"])
def test_redis_takes_its_password_from_a_file_or_the_environment(
    tmp_path: Path, free_port: Callable[[], int], given: str
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("from the file\n")
    port, script = free_port(), COMPOSE["services"]["redis"]["command"][2]
    for written, meant in (
        ("$$", "$"),
        ("/run/secrets/fourstep_redis_password", str(secret)),
        ("redis-server -", f"{BUNDLED} - --port {port} --dir {tmp_path}"),
    ):
        script = script.replace(written, meant)
    environment = {"PATH": os.environ["PATH"], "REDIS_PASSWORD": given, "REDIS_MEMORY": "32mb"}
    server = subprocess.Popen(["sh", "-ec", script], env=environment, stdout=subprocess.DEVNULL)
    try:
        with Redis(port=port, password=given or "from the file") as redis:
            block_until(lambda: _answers(redis), "Redis does not take the password")
            assert list(redis.config_get("maxmemory").values()) in (["33554432"], [b"33554432"])
        command = Path(f"/proc/{server.pid}/cmdline")
        assert not command.exists() or b"from the" not in command.read_bytes()
    finally:
        server.kill()
        server.wait()


def _answers(redis: Redis) -> bool:
    try:
        return bool(redis.ping())
    except RedisConnectionError:
        return False
