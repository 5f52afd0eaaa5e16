"""The logs of a call name its job, in the lines of both processes, and never its prompt."""

import json
from typing import Any

import httpx
import pytest

from jobs.testing.waiting import SAFETY_NET_S, block_until
from tests.running import Running

PROMPT = "a prompt that nobody may see"


@pytest.mark.slow
def test_a_job_is_followed_through_the_logs_of_both_processes(fourstep_up: Running) -> None:
    request = {"prompt": PROMPT, "num_images": 2}
    answer = httpx.post(f"{fourstep_up.url}/generate", json=request, timeout=SAFETY_NET_S)
    job_id = answer.raise_for_status().json()["id"]
    assert httpx.get(f"{fourstep_up.url}/jobs/{job_id}", timeout=SAFETY_NET_S).is_success

    def logged(event: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in fourstep_up.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line.get("job_id") == job_id and line["event"] == event]

    block_until(lambda: len(logged("request")) == 2 and len(logged("image")) == 2, "lines of the job are missing")
    assert [line["endpoint"] for line in logged("request")] == ["/generate", "/jobs/{job_id}"]
    assert sorted((line["index"], line["outcome"]) for line in logged("image")) == [(0, "ok"), (1, "ok")]
    assert PROMPT not in fourstep_up.log.read_text()
