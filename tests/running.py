"""`fourstep up` with everything real: one for all tests that only call it, and others to stop."""

import base64
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from jobs.sampling_contract import SamplingContract
from jobs.settings import BUNDLED_MODEL
from jobs.testing.redis_servers import free_port
from jobs.testing.waiting import SAFETY_NET_S, block_until

# Only Linux has it, and tells there which process started which.
PROC = Path("/proc")

HEIGHT, WIDTH = SamplingContract.load(BUNDLED_MODEL).sizes[0]
"""Of the bundled model's pictures, in pixels."""

REQUEST = {"prompt": "a smiling cat face", "seed": 7, "num_images": 4}


@dataclass(frozen=True)
class Running:
    """A running `fourstep up`: process, address of the API, port of the worker's metrics, and log file."""

    process: subprocess.Popen
    url: str
    metrics_port: int
    log: Path


@pytest.fixture(scope="session")
def fourstep_up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Serve the bundled model to every test that asks for it; fail when a process is left behind at the end."""
    up = start_up(tmp_path_factory.mktemp("up"))
    wait_until_converted(up.url, "emoji-student")
    yield up
    leaves_nothing_behind(up.process, signal.SIGTERM)


def start_up(folder: Path) -> Running:
    """Start it and wait until it is ready; its log is a file in `folder`."""
    port, metrics_port, log = free_port(), free_port(), folder / "log"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FOURSTEP_")}
    environment |= {"FOURSTEP_PORT": str(port), "FOURSTEP_METRICS_PORT": str(metrics_port), "FOURSTEP_TIMEOUT_S": "600"}
    with log.open("w") as file:
        process = subprocess.Popen([sys.executable, "-m", "fourstep", "up"], env=environment, stderr=file)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_ready(url, process)
    except AssertionError as error:
        stop(process)
        raise AssertionError(log.read_text()) from error
    return Running(process, url, metrics_port, log)


def wait_until_ready(url: str, process: subprocess.Popen) -> None:
    def ready() -> bool:
        assert process.poll() is None, "fourstep stopped"
        return answers(f"{url}/readyz") == 200

    block_until(ready, "fourstep did not become ready")


def wait_until_converted(url: str, *models: str) -> None:
    """Wait until nothing changes what runs the networks of `models` any more: their strict images wait for it."""
    for model in models:
        body = {"prompt": "fruit", "seed": 1, "mode": "strict", "model": model, "timeout": 600}

        def drawn(body: dict[str, object] = body) -> bool:
            return httpx.post(f"{url}/generate", json=body, timeout=2 * SAFETY_NET_S).status_code == 200

        block_until(drawn, f"{model} draws no strict image")


def pictures(answer: httpx.Response) -> list[bytes]:
    """The files in the answer to a call like REQUEST."""
    assert answer.status_code == 200, answer.text
    return [base64.b64decode(image["b64"]) for image in answer.json()["images"]]


def answers(url: str) -> int | None:
    """The status of the answer, if there is one."""
    try:
        return httpx.get(url, timeout=SAFETY_NET_S).status_code
    except httpx.TransportError:
        return None


def stop(process: subprocess.Popen) -> None:
    process.terminate()
    process.wait(timeout=SAFETY_NET_S)


def leaves_nothing_behind(up: subprocess.Popen, signal_number: signal.Signals) -> None:
    """End `fourstep up` by a signal; AssertionError when one of its processes outlives it."""
    family = _descendants(up.pid) if PROC.is_dir() else []
    assert len(family) >= 3 or not PROC.is_dir(), "Redis, the worker and the API"
    up.send_signal(signal_number)
    up.wait(timeout=SAFETY_NET_S)
    block_until(lambda: not any(_runs(pid) for pid in family), "its children are still there")


def _runs(pid: int) -> bool:
    """Return whether the process exists and is no zombie that only waits to be reaped."""
    try:
        return (PROC / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _descendants(pid: int) -> list[int]:
    children = (PROC / str(pid) / "task" / str(pid) / "children").read_text().split()
    return [each for child in children for each in (int(child), *_descendants(int(child)))]
