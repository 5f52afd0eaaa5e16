"""`fourstep up` with everything real: a prompt goes in, pictures come out, and nothing is left behind."""

import base64
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest
from PIL import Image

from tests.conftest import _free_port

REQUEST = {"prompt": "a smiling cat face", "seed": 7, "num_images": 4}


@dataclass(frozen=True)
class Running:
    process: subprocess.Popen
    url: str


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    process, url = start_up(_free_port(), _free_port())
    yield Running(process, url)
    process.terminate()
    process.wait(timeout=20)


def start_up(port: int, metrics_port: int) -> tuple[subprocess.Popen, str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FOURSTEP_")}
    environment |= {"FOURSTEP_PORT": str(port), "FOURSTEP_METRICS_PORT": str(metrics_port)}
    process = subprocess.Popen([sys.executable, "-m", "fourstep", "up"], env=environment)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: answers(f"{url}/readyz") == 200, "ready", 90)
    except AssertionError:
        process.terminate()
        raise
    return process, url


def answers(url: str) -> int | None:
    try:
        return httpx.get(url, timeout=5).status_code
    except httpx.TransportError:
        return None


def wait_until(holds, what: str, seconds: float) -> None:
    give_up = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < give_up, f"not {what} within {seconds} s"
        time.sleep(0.1)


def pictures(answer: httpx.Response) -> list[bytes]:
    assert answer.status_code == 200, answer.text
    return [base64.b64decode(image["b64"]) for image in answer.json()["images"]]


def test_four_different_pictures_and_the_same_bytes_again(running: Running) -> None:
    first = pictures(httpx.post(f"{running.url}/generate", json=REQUEST, timeout=60))
    assert len(set(first)) == 4
    for data in first:
        with Image.open(io.BytesIO(data)) as picture:
            assert (picture.format, picture.size) == ("PNG", (64, 64))
            assert len(picture.convert("RGB").getcolors(4096)) > 100, "a picture, not a flat colour"
    again = pictures(httpx.post(f"{running.url}/generate", json=REQUEST, timeout=60))
    assert again == first


def test_image_i_is_seed_plus_i_alone_too(running: Running) -> None:
    request = REQUEST | {"mode": "strict"}
    together = pictures(httpx.post(f"{running.url}/generate", json=request, timeout=60))
    alone = pictures(httpx.post(f"{running.url}/generate", json=request | {"seed": 9, "num_images": 1}, timeout=60))
    assert alone[0] == together[2]


def test_the_command_line_client_writes_the_files(running: Running, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fourstep", "generate", "fruit", "-n", "2", "--seed", "3", "-o", str(tmp_path)]
    done = subprocess.run([*command, "--server", running.url], capture_output=True, text=True, timeout=60, check=True)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".png", ".png"]
    assert "3" in done.stdout
    assert "4" in done.stdout


def test_openais_client_sees_the_picture_come_into_being(running: Running) -> None:
    client = openai.OpenAI(base_url=f"{running.url}/v1", api_key="any", max_retries=0)
    events = list(client.images.generate(prompt="a smiling cat face", stream=True, partial_images=2))
    assert [event.type.rpartition(".")[2] for event in events] == ["partial_image", "partial_image", "completed"]
    assert [event.partial_image_index for event in events[:2]] == [0, 1]
    kinds = [Image.open(io.BytesIO(base64.b64decode(event.b64_json))) for event in events]
    assert [(picture.format, picture.size) for picture in kinds] == [("JPEG", (64, 64))] * 2 + [("PNG", (64, 64))]
    final, *partial = (np.asarray(picture.convert("RGB"), dtype=float) for picture in reversed(kinds))
    errors = [np.abs(each - final).mean() for each in partial]  # the last first
    assert 0 < errors[0] < errors[1]


def test_a_diverse_set_reproduces_by_its_seeds(running: Running) -> None:
    request = {"prompt": "an animal", "seed": 5, "num_images": 3, "mode": "strict"}
    select = {"select": {"diverse": True, "candidates": 9}}
    answer = httpx.post(f"{running.url}/generate", json=request | select, timeout=60)
    seeds = [image["seed"] for image in answer.json()["images"]]
    assert set(seeds) <= set(range(5, 14))
    plain = {"prompt": "an animal", "seeds": seeds, "mode": "strict"}
    again = httpx.post(f"{running.url}/generate", json=plain, timeout=60)
    assert pictures(again) == pictures(answer)
    assert again.json()["diversity"]["score"] == pytest.approx(answer.json()["diversity"]["score"], abs=1e-3)


def test_models_and_metrics_tell_what_runs(running: Running) -> None:
    assert "emoji-student" in httpx.get(f"{running.url}/models").text
    assert "fourstep_requests_total" in httpx.get(f"{running.url}/metrics").text


def test_a_second_up_on_the_same_port_is_refused_in_one_line(running: Running) -> None:
    port = running.url.rsplit(":", 1)[1]
    environment = os.environ | {"FOURSTEP_PORT": port, "FOURSTEP_METRICS_PORT": "0"}
    command = [sys.executable, "-m", "fourstep", "up"]
    second = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert second.returncode == 1
    assert port in second.stderr
    assert len(second.stderr.strip().splitlines()) == 1


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads /proc to find descendants")
@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_leaves_no_process_behind(signal_number: signal.Signals) -> None:
    process, _ = start_up(_free_port(), _free_port())
    family = descendants(process.pid)
    assert len(family) >= 3, "Redis, the worker and the API"
    process.send_signal(signal_number)
    wait_until(lambda: process.poll() is not None, "gone", 10)
    wait_until(lambda: not any(is_running(pid) for pid in family), "without descendants", 10)


def is_running(pid: int) -> bool:
    """Whether the process exists and is no zombie that only waits to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def descendants(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [each for child in children for each in (int(child), *descendants(int(child)))]
