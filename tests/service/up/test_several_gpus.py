"""`fourstep up` on a machine of three GPUs, as CUDA_VISIBLE_DEVICES says: real processes, which find no CUDA here."""

import contextlib
import os
import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest
from PIL import Image

from jobs.testing import redis_servers
from jobs.testing.waiting import SAFETY_NET_S, block_until
from worker.testing import tiny_pipelines

pytestmark = pytest.mark.slow

GPUS = ["2", "GPU-5d0b", "0"]
SETTINGS = {"FOURSTEP_CPU_RUNTIME": "torch", "FOURSTEP_MAX_BATCH": "2", "FOURSTEP_DTYPE": "float32"}


@dataclass
class Up:
    """A running `fourstep up`, its lines up to the last worker's readiness, and the first port of metrics."""

    process: subprocess.Popen[str]
    lines: list[str]
    url: str
    metrics_port: int

    @property
    def workers(self) -> dict[str, psutil.Process]:
        """GPU → the process that sees it alone."""
        found = {}
        for child in psutil.Process(self.process.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):  # it has just died
                if child.cmdline()[-1:] == ["worker"]:
                    found[child.environ()["CUDA_VISIBLE_DEVICES"]] = child
        return found


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("models")
    return [str(tiny_pipelines.save(folder / name)) for name in ("one", "two")]


@pytest.fixture(scope="module")
def up(models: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    port, metrics_port = redis_servers.free_port(), _first_of_free_ports(len(GPUS))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FOURSTEP_")} | SETTINGS
    environment |= {"FOURSTEP_PORT": str(port), "FOURSTEP_METRICS_PORT": str(metrics_port)}
    # Their number is set: else a GPU that PyTorch does not compute on would get none.
    environment |= {"CUDA_VISIBLE_DEVICES": ",".join(GPUS), "FOURSTEP_WORKERS": str(len(GPUS))}
    log = tmp_path_factory.mktemp("up") / "log"
    command = [sys.executable, "-m", "fourstep", "up", *models]
    with log.open("w") as file:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=file, text=True)
    assert process.stdout is not None
    lines: list[str] = []
    while sum("is ready" in line for line in lines) < len(GPUS):
        lines.append(process.stdout.readline())
        assert lines[-1], log.read_text()
    yield Up(process, lines, f"http://127.0.0.1:{port}", metrics_port)
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=SAFETY_NET_S)


def test_each_gpu_has_a_worker_and_each_model_its_share(up: Up) -> None:
    ready = [line.split(" with ")[1].strip() for line in up.lines if "is ready" in line]
    assert ready == ["one on GPU 2", "two on GPU GPU-5d0b", "one on GPU 0"]
    assert up.workers.keys() == set(GPUS)
    for number, model in enumerate(["one", "two", "one"]):
        metrics = httpx.get(f"http://127.0.0.1:{up.metrics_port + number}/metrics").text
        assert f'model="{model}"' in metrics
    for model in ("one", "two"):
        body = {"prompt": "a cat", "model": model, "num_images": 4, "timeout": 600}
        answer = httpx.post(f"{up.url}/generate", json=body, timeout=SAFETY_NET_S)
        assert len(answer.json()["images"]) == 4


@pytest.mark.needs("curl")
def test_the_call_that_is_shown_at_the_end_makes_a_picture(up: Up, tmp_path: Path) -> None:
    assert up.process.stdout is not None
    shown = up.process.stdout.readline().removeprefix("a first picture: ")
    subprocess.run(shown, shell=True, check=True, cwd=tmp_path)
    with Image.open(tmp_path / "cat.png") as picture:
        assert picture.size == (64, 64)


def test_a_worker_that_dies_comes_back_on_its_gpu(up: Up) -> None:
    before = up.workers
    before["GPU-5d0b"].kill()

    def back() -> bool:
        workers = up.workers  # read once: one that is just starting may be missing the next time
        return workers.keys() == set(GPUS) and workers["GPU-5d0b"].pid != before["GPU-5d0b"].pid

    block_until(back, "gone")
    assert up.workers["2"].pid == before["2"].pid


def test_a_further_worker_joins_by_the_address_that_only_its_owner_can_read(
    up: Up, models: list[str], free_port: Callable[[], int]
) -> None:
    (address,) = [match[1] for line in up.lines if (match := re.search(r"FOURSTEP_REDIS_URL=\$\(cat (\S+)\)", line))]
    assert stat.S_IMODE(Path(address).stat().st_mode) & 0o077 == 0
    assert stat.S_IMODE(Path(address).parent.stat().st_mode) == 0o700
    port = free_port()
    joining = SETTINGS | {"FOURSTEP_REDIS_URL": Path(address).read_text().strip(), "FOURSTEP_MODEL": models[1]}
    with subprocess.Popen(
        [sys.executable, "-m", "fourstep", "worker"],
        env=os.environ | joining | {"FOURSTEP_METRICS_PORT": str(port)},
        stderr=subprocess.DEVNULL,
    ) as worker:
        try:
            block_until(lambda: _announced(port, "two"), "the further worker does not join")
        finally:
            worker.terminate()


def _first_of_free_ports(number: int) -> int:
    while True:
        first = redis_servers.free_port()
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            for port in range(first, first + number):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
            return first


def _announced(port: int, model: str) -> bool:
    try:
        return f'model="{model}"' in httpx.get(f"http://127.0.0.1:{port}/metrics").text
    except httpx.TransportError:
        return False
