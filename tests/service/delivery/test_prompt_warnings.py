"""A prompt that the model reads only the beginning of is told, whatever form the answer has."""

import asyncio
import io
import json
from pathlib import Path

import httpx
import pytest
from rich.console import Console

from jobs.testing.samples import WORDS_READ, sample_card
from jobs.testing.waiting import wait_until
from service.client import generate_files
from tests.service.calls import ASYNC, start
from tests.service.stand_in_worker import StandInWorker

pytestmark = pytest.mark.usefixtures("worker")

LONG = " ".join(["cat"] * (WORDS_READ + 9))
MESSAGE = "the model reads 16 tokens of a prompt, and this one has 25: the rest is not in the picture"
WARNINGS = [{"field": "prompt", "message": MESSAGE}]


async def test_in_json_in_a_header_and_not_without_need(api: httpx.AsyncClient) -> None:
    assert (await api.post("/generate", json={"prompt": LONG, "num_images": 3})).json()["warnings"] == WARNINGS
    assert "warnings" not in (await api.post("/generate", json={"prompt": "cat " * WORDS_READ})).json()
    raw = await api.post("/generate", json={"prompt": LONG}, headers={"Accept": "image/png"})
    assert json.loads(raw.headers["fourstep-warnings"]) == WARNINGS


async def test_a_long_negative_prompt_is_told_like_a_long_prompt(
    api: httpx.AsyncClient, worker: StandInWorker, tmp_path: Path
) -> None:
    guided = {"evaluations": 8, "guidance_scale": 3.5, "negative_prompt": ""}
    worker.card = sample_card().model_copy(update=guided)
    request = {"prompt": "a cat", "negative_prompt": LONG}

    async def taken() -> bool:
        return (await api.post("/generate", json=request)).status_code == 200

    await wait_until(taken)
    message = MESSAGE.replace("is not in the picture", "keeps nothing out of the picture")
    warnings = [{"field": "negative_prompt", "message": message}]
    job = (await api.post("/generate", json=request, headers=ASYNC)).headers["location"]
    await wait_until(lambda: len(worker.made) == 2)
    assert (await api.get(job)).json()["warnings"] == warnings
    assert (await api.post("/v1/images/generations", json=request)).json()["warnings"] == warnings
    both = (await api.post("/generate", json=request | {"prompt": LONG})).json()["warnings"]
    assert both == [*WARNINGS, *warnings]
    printed = Console(file=io.StringIO(), width=200)
    await asyncio.to_thread(generate_files, str(api.base_url), request | {"format": "png"}, tmp_path, printed)
    assert f"negative_prompt: {message}" in printed.file.getvalue()  # type: ignore[attr-defined]


async def test_in_a_job_and_its_last_event(api: httpx.AsyncClient, worker: StandInWorker) -> None:
    job = await start(api, prompt=LONG)
    await wait_until(lambda: worker.made)
    events = (await api.get(f"{job}/events")).text
    assert (await api.get(job)).json()["warnings"] == WARNINGS
    assert MESSAGE in events.rpartition("event: completed")[2]


async def test_under_openai_s_names_and_in_a_stream(api: httpx.AsyncClient) -> None:
    path = "/v1/images/generations"
    assert (await api.post(path, json={"prompt": LONG})).json()["warnings"] == WARNINGS
    assert MESSAGE in (await api.post(path, json={"prompt": LONG, "stream": True})).text


async def test_by_the_command(api: httpx.AsyncClient, tmp_path: Path) -> None:
    printed = Console(file=io.StringIO(), width=200)
    request = {"prompt": LONG, "format": "png"}
    await asyncio.to_thread(generate_files, str(api.base_url), request, tmp_path, printed)
    assert f"prompt: {MESSAGE}" in printed.file.getvalue()  # type: ignore[attr-defined]
