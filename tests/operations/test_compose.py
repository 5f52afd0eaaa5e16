"""`docker compose up` without a Docker engine: the files are valid, hardened, and name only settings that exist."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from jobs.settings import PREFIX, ApiSettings, WorkerSettings
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
