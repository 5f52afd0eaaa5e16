"""Requests as clients of OpenAI's API send them, to a server whose operator has made room for it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import openai
import pytest

from jobs.settings import ApiSettings
from jobs.testing.samples import MODEL
from service import waiting
from tests.service.running_api import running_api
from tests.service.stand_in_worker import FAILING_PROMPT, StandInWorker, held

PATH = "/v1/images/generations"
OPEN_WEBUI = {"model": "dall-e-2", "prompt": "a cat", "n": 1, "size": "512x512", "response_format": "b64_json"}
LIBRECHAT = {
    "model": "dall-e-3",
    "prompt": "a cat",
    "quality": "standard",
    "style": "vivid",
    "size": "1024x1024",
    "n": 1,
}
LANGCHAIN = {"model": "dall-e-2", "prompt": "a cat", "n": 1, "size": "1024x1024", "quality": "hd", "style": "natural"}
GPT_IMAGE = {"model": "gpt-image-1", "prompt": "a cat", "quality": "high", "background": "transparent", "size": "auto"}


@pytest.fixture
def settings(redis_url: str, free_port: Callable[[], int]) -> ApiSettings:
    aliases = f"dall-e-*={MODEL}, gpt-image-*={MODEL}"
    return ApiSettings(redis_url=redis_url, port=free_port(), model_aliases=aliases, size_fallback="nearest")  # type: ignore[arg-type]


@pytest.fixture
async def client(api: httpx.AsyncClient, worker: StandInWorker) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{api.base_url}/v1", api_key="any") as client:
        yield client


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize(
    ("body", "warned"),
    [
        (OPEN_WEBUI, ["size"]),
        (LIBRECHAT, ["style", "size"]),
        (LANGCHAIN, ["quality", "style", "size"]),
        (GPT_IMAGE, ["quality", "background"]),
        ({"prompt": "a cat", "quality": "auto", "background": "opaque", "moderation": "auto"}, []),
        (
            {"prompt": "a cat", "moderation": "low", "input_fidelity": "high", "user": "me"},
            ["moderation", "input_fidelity", "user"],
        ),
    ],
)
async def test_requests_work_and_what_is_not_used_is_named(
    api: httpx.AsyncClient, body: dict[str, Any], warned: list[str]
) -> None:
    answer = await api.post(PATH, json=body)
    assert answer.status_code == 200, answer.text
    assert [warning["field"] for warning in answer.json().get("warnings", [])] == warned
    assert all(warning["message"] for warning in answer.json().get("warnings", []))


@pytest.mark.usefixtures("worker")
async def test_without_a_response_format_images_come_both_ways(api: httpx.AsyncClient) -> None:
    (image,) = (await api.post(PATH, json=LIBRECHAT)).json()["data"]
    assert image["b64_json"]
    assert (await api.get(image["url"])).status_code == 200
    for form, other in (("url", "b64_json"), ("b64_json", "url")):
        (image,) = (await api.post(PATH, json=LIBRECHAT | {"response_format": form})).json()["data"]
        assert form in image
        assert other not in image


@pytest.mark.parametrize(("asked", "made"), [("1024x1024", "64x64"), ("1792x1024", "96x64"), ("16x16", "64x64")])
async def test_the_nearest_size_is_first_the_nearest_shape(client: openai.AsyncOpenAI, asked: Any, made: str) -> None:
    answer = await client.images.generate(prompt="a cat", size=asked)
    assert answer.size == made
    assert answer.model_extra
    message = f"{asked} is made as {made}, the nearest size that {MODEL} has"
    assert answer.model_extra["warnings"] == [{"field": "size", "message": message}]


@pytest.mark.usefixtures("worker")
async def test_generate_warns_too(api: httpx.AsyncClient) -> None:
    body = {"prompt": "a cat", "model": "dall-e-3", "width": 1024, "height": 10**300}
    answer = await api.post("/generate", json=body | {"height": 1024})
    assert answer.json()["model"] == MODEL
    assert [warning["field"] for warning in answer.json()["warnings"]] == ["width", "height"]
    queued = await api.post("/generate", json=body, headers={"Prefer": "respond-async"})
    assert [warning["field"] for warning in queued.json()["warnings"]] == ["width", "height"]
    alone = await api.post("/generate", json=body, headers={"Accept": "image/png"})
    assert "nearest" in alone.headers["fourstep-warnings"]


@pytest.mark.usefixtures("worker")
async def test_models_own_names_come_before_aliases(redis_url: str, free_port: Callable[[], int]) -> None:
    settings = ApiSettings(redis_url=redis_url, port=free_port(), model_aliases="*=nobody")  # type: ignore[arg-type]
    async with running_api(settings) as api:
        assert (await api.post("/generate", json={"prompt": "a cat", "model": MODEL})).status_code == 200
        assert (await api.post("/generate", json={"prompt": "a cat", "model": "x"})).status_code == 422


async def test_an_alias_is_found_and_an_unknown_model_is_not(client: openai.AsyncOpenAI) -> None:
    assert (await client.models.retrieve("gpt-image-1")).id == "gpt-image-1"
    with pytest.raises(openai.NotFoundError) as caught:
        await client.images.generate(prompt="a cat", model="stable-diffusion")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    assert MODEL in str(caught.value)


async def test_usage_is_openais(client: openai.AsyncOpenAI) -> None:
    usage = (await client.images.generate(prompt="a cat")).usage
    assert usage is not None
    assert (usage.total_tokens, usage.input_tokens_details.text_tokens) == (0, 0)


async def test_additions_reach_the_model(client: openai.AsyncOpenAI, worker: StandInWorker) -> None:
    answer = await client.images.generate(prompt="a cat", extra_body={"seeds": [5, 3], "mode": "strict"})
    assert answer.data is not None
    assert [image.model_extra for image in answer.data] == [{"seed": 5}, {"seed": 3}]
    assert {task.mode for task in worker.made} == {"strict"}
    answer = await client.images.generate(
        prompt="a cat", n=2, extra_body={"select": {"diverse": True, "candidates": 4}}
    )
    assert len(answer.data or []) == 2


async def jobs_of(work: Any, worker: StandInWorker, kind: type[Exception]) -> int:
    """Count the jobs that a failing call of a client that repeats makes."""
    before = {task.job_id for task in worker.seen}
    with pytest.raises(kind):
        await work
    return len({task.job_id for task in worker.seen} - before)


async def test_a_client_does_not_repeat_what_would_do_the_same_work(
    client: openai.AsyncOpenAI, worker: StandInWorker, api: httpx.AsyncClient, settings: ApiSettings
) -> None:
    failing = client.images.generate(prompt=FAILING_PROMPT)
    assert await jobs_of(failing, worker, openai.InternalServerError) == 1
    worker.busy = True
    cancelled = asyncio.create_task(jobs_of(client.images.generate(prompt="a cat"), worker, openai.ConflictError))
    await held(worker, 1)
    await api.delete(f"/jobs/{worker.seen[-1].job_id}")
    assert await cancelled == 1


async def test_a_call_that_times_out_makes_one_job(
    redis_url: str, free_port: Callable[[], int], worker: StandInWorker
) -> None:
    worker.busy = True
    settings = ApiSettings(redis_url=redis_url, port=free_port(), timeout_s=0.3)
    async with (
        running_api(settings) as api,
        openai.AsyncOpenAI(base_url=f"{api.base_url}/v1", api_key="any") as client,
    ):
        late = client.images.generate(prompt="a cat")
        assert await jobs_of(late, worker, openai.InternalServerError) == 1


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize(
    ("body", "status", "repeat"), [({"prompt": ""}, 422, "false"), ({"prompt": "a cat", "model": "x"}, 404, "false")]
)
async def test_refusals_say_that_a_repetition_is_no_use(
    api: httpx.AsyncClient, body: dict[str, Any], status: int, repeat: str
) -> None:
    answer = await api.post(PATH, json=body)
    assert (answer.status_code, answer.headers["x-should-retry"]) == (status, repeat)


async def test_no_model_yet_is_worth_a_repetition(api: httpx.AsyncClient) -> None:
    answer = await api.post(PATH, json={"prompt": "a cat"})
    assert answer.status_code == 503
    assert "x-should-retry" not in answer.headers


async def test_a_stream_passes_proxies_and_stays_open(
    api: httpx.AsyncClient, worker: StandInWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "POLL_S", 0.02)
    worker.busy = True
    async with api.stream("POST", PATH, json={"prompt": "a cat", "stream": True}) as answer:
        assert (answer.headers["cache-control"], answer.headers["x-accel-buffering"]) == ("no-cache", "no")
        async for line in answer.aiter_lines():
            if line == ": ping":
                break
        else:
            pytest.fail("no comment while the client waits")


async def streamed(api: httpx.AsyncClient, headers: dict[str, str] | None = None, **body: Any) -> tuple[int, str]:
    """The longest line of a stream, in bytes, and the stream itself."""
    answer = await api.post(PATH, json={"prompt": "a cat", "stream": True, **body}, headers=headers)
    assert answer.status_code == 200, answer.text
    return max(map(len, answer.content.split(b"\n"))), answer.text


async def test_no_line_is_long_unless_base64_was_asked_for(
    api: httpx.AsyncClient, worker: StandInWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.service.stand_in_worker._picture", lambda task: bytes(100_000))
    longest, text = await streamed(api)
    assert longest < 2**16
    assert '"url"' in text
    assert "b64_json" not in text
    longest, text = await streamed(api, response_format="url")
    assert longest < 2**16
    assert (await streamed(api, response_format="b64_json"))[0] > 2**17
    assert (await streamed(api, headers={"X-Stainless-Lang": "js"}))[0] > 2**17


@pytest.mark.usefixtures("worker")
async def test_a_stream_warns_with_its_images(api: httpx.AsyncClient) -> None:
    assert '"warnings":[{"field":"style"' in (await streamed(api, style="vivid"))[1]


async def test_preflights_allow_what_a_page_of_an_allowed_origin_asks_for(
    redis_url: str, free_port: Callable[[], int]
) -> None:
    settings = ApiSettings(redis_url=redis_url, port=free_port(), cors_origins="https://app.example", api_keys="k")  # type: ignore[arg-type]
    asked = "authorization,content-type,x-stainless-arch,x-stainless-retry-count"
    headers = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": asked}
    async with running_api(settings) as api:
        answer = await api.options(PATH, headers=headers | {"Origin": "https://app.example"})
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-headers"] == asked
        assert answer.headers["access-control-allow-origin"] == "https://app.example"
        answer = await api.options(PATH, headers=headers | {"Origin": "https://elsewhere.example"})
        assert answer.status_code == 400
