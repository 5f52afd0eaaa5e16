"""`fourstep up` with everything real: a prompt goes in, pictures come out."""

import base64
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from PIL import Image

from jobs.testing.waiting import SAFETY_NET_S
from tests.running import HEIGHT, REQUEST, WIDTH, Running, pictures

pytestmark = pytest.mark.slow


def test_four_different_pictures_and_the_same_bytes_again(fourstep_up: Running) -> None:
    first = pictures(httpx.post(f"{fourstep_up.url}/generate", json=REQUEST, timeout=SAFETY_NET_S))
    assert len(set(first)) == 4
    for data in first:
        with Image.open(io.BytesIO(data)) as picture:
            assert (picture.format, picture.size) == ("PNG", (WIDTH, HEIGHT))
            assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 100, "not a flat colour"
    strict = REQUEST | {"mode": "strict"}
    again = [pictures(httpx.post(f"{fourstep_up.url}/generate", json=strict, timeout=SAFETY_NET_S)) for _ in "12"]
    assert again[0] == again[1]


def test_image_i_is_seed_plus_i_alone_too(fourstep_up: Running) -> None:
    request = REQUEST | {"mode": "strict"}
    together = pictures(httpx.post(f"{fourstep_up.url}/generate", json=request, timeout=SAFETY_NET_S))
    alone = pictures(
        httpx.post(f"{fourstep_up.url}/generate", json=request | {"seed": 9, "num_images": 1}, timeout=SAFETY_NET_S)
    )
    assert alone[0] == together[2]


def test_the_command_line_client_writes_the_files(fourstep_up: Running, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fourstep", "generate", "fruit", "-n", "2", "--seed", "3", "-o", str(tmp_path)]
    done = subprocess.run(
        [*command, "--server", fourstep_up.url], capture_output=True, text=True, timeout=SAFETY_NET_S, check=True
    )
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".png", ".png"]
    assert "3" in done.stdout
    assert "4" in done.stdout


def test_openais_client_sees_the_picture_come_into_being(fourstep_up: Running) -> None:
    client = openai.OpenAI(base_url=f"{fourstep_up.url}/v1", api_key="any", max_retries=0)
    events: list[Any] = []
    while len(events) < 3:  # a preview that is late is left out
        events = list(client.images.generate(prompt="a smiling cat face", stream=True, partial_images=2))
    assert [event.type.rpartition(".")[2] for event in events] == ["partial_image", "partial_image", "completed"]
    assert [event.partial_image_index for event in events[:2]] == [0, 1]
    kinds = [Image.open(io.BytesIO(base64.b64decode(event.b64_json))) for event in events]
    assert [picture.format for picture in kinds] == ["JPEG", "JPEG", "PNG"]
    assert {picture.size for picture in kinds} == {(WIDTH, HEIGHT)}
    final, *partial = (np.asarray(picture.convert("RGB"), dtype=float) for picture in reversed(kinds))
    errors = [np.abs(each - final).mean() for each in partial]  # the last first
    assert 0 < errors[0] < errors[1]


def test_a_diverse_set_reproduces_by_its_seeds(fourstep_up: Running) -> None:
    request = {"prompt": "an animal", "seed": 5, "num_images": 3, "mode": "strict"}
    select = {"select": {"diverse": True, "candidates": 9}}
    answer = httpx.post(f"{fourstep_up.url}/generate", json=request | select, timeout=SAFETY_NET_S)
    seeds = [image["seed"] for image in answer.json()["images"]]
    assert set(seeds) <= set(range(5, 14))
    plain = {"prompt": "an animal", "seeds": seeds, "mode": "strict"}
    again = httpx.post(f"{fourstep_up.url}/generate", json=plain, timeout=SAFETY_NET_S)
    assert pictures(again) == pictures(answer)
    assert again.json()["diversity"]["score"] == pytest.approx(answer.json()["diversity"]["score"], abs=1e-3)


def test_models_and_metrics_tell_what_runs(fourstep_up: Running) -> None:
    assert "emoji-student" in httpx.get(f"{fourstep_up.url}/models").text
    assert "fourstep_requests_total" in httpx.get(f"{fourstep_up.url}/metrics").text


def test_a_second_up_on_the_same_port_is_refused_in_one_line(fourstep_up: Running) -> None:
    port = fourstep_up.url.rsplit(":", 1)[1]
    environment = os.environ | {"FOURSTEP_PORT": port, "FOURSTEP_METRICS_PORT": "0"}
    command = [sys.executable, "-m", "fourstep", "up"]
    second = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SAFETY_NET_S, check=False)
    assert second.returncode == 1
    assert port in second.stderr
    assert len(second.stderr.strip().splitlines()) == 1
