"""What an operator finds in the logs of a call: its job, in the lines of both processes, and never its prompt."""

import json
from collections.abc import Callable

import httpx
import pytest

from tests.bundled.test_up import start_up

PROMPT = "a prompt that nobody may see"


def test_a_job_is_followed_through_the_logs_of_both_processes(
    capfd: pytest.CaptureFixture[str], free_port: Callable[[], int]
) -> None:
    up, url = start_up(free_port(), free_port())
    try:
        answer = httpx.post(f"{url}/generate", json={"prompt": PROMPT, "num_images": 2}, timeout=60)
        job_id = answer.raise_for_status().json()["id"]
        assert httpx.get(f"{url}/jobs/{job_id}").is_success
    finally:
        up.terminate()
        up.wait(timeout=20)
    logged = capfd.readouterr().err
    assert PROMPT not in logged
    lines = [json.loads(line) for line in logged.splitlines() if line.startswith("{")]
    of_the_job = [line for line in lines if line.get("job_id") == job_id]
    requests = [line["endpoint"] for line in of_the_job if line["event"] == "request"]
    assert requests == ["/generate", "/jobs/{job_id}"]
    images = [(line["index"], line["outcome"]) for line in of_the_job if line["event"] == "image"]
    assert sorted(images) == [(0, "ok"), (1, "ok")]
