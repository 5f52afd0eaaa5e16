"""Libraries and programs that speak OpenAI's API: each is called as its documentation shows, or sent as it sends."""

import asyncio
import base64
import importlib
import json
from collections.abc import Callable
from types import ModuleType
from typing import Any

import aiohttp
import httpx
import pytest

from jobs.settings import ApiSettings
from jobs.testing.samples import MODEL
from tests.service.stand_in_worker import StandInWorker

PATH = "/v1/images/generations"
PNG = b"\x89PNG"
# As Open WebUI (routers/images.py, by requests) and LibreChat (DALLE3.js, by openai for Node) write them on the wire.
OPEN_WEBUI = (
    b"POST /v1/images/generations HTTP/1.1\r\nHost: %s\r\nUser-Agent: python-requests/2.32.3\r\n"
    b"Accept-Encoding: gzip, deflate\r\nAccept: */*\r\nConnection: keep-alive\r\nAuthorization: Bearer sk-any\r\n"
    b"Content-Type: application/json\r\nX-OpenWebUI-User-Name: Ann\r\nContent-Length: %d\r\n\r\n%s",
    b'{"model": "dall-e-2", "prompt": "a cat", "n": 1, "size": "512x512", "response_format": "b64_json"}',
)
LIBRECHAT = (
    b"POST /v1/images/generations HTTP/1.1\r\nHost: %s\r\naccept: application/json\r\n"
    b"content-type: application/json\r\nuser-agent: OpenAI/JS 4.96.2\r\nx-stainless-retry-count: 0\r\n"
    b"x-stainless-lang: js\r\nx-stainless-package-version: 4.96.2\r\nx-stainless-runtime: node\r\n"
    b"authorization: Bearer sk-any\r\ncontent-length: %d\r\nconnection: keep-alive\r\n\r\n%s",
    b'{"model":"dall-e-3","quality":"standard","style":"vivid","size":"1024x1024","prompt":"a cat","n":1}',
)


@pytest.fixture
def settings(redis_url: str, free_port: Callable[[], int]) -> ApiSettings:
    aliases: Any = f"dall-e-*={MODEL}"
    return ApiSettings(redis_url=redis_url, port=free_port(), model_aliases=aliases, size_fallback="nearest")


async def sent(api: httpx.AsyncClient, request: tuple[bytes, bytes]) -> dict[str, Any]:
    """Write the bytes of a request and read the answer's body."""
    head, body = request
    host = f"127.0.0.1:{api.base_url.port}".encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", api.base_url.port)
    writer.write(head % (host, len(body), body))
    answered = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
    assert answered[0] == "http/1.1 200 ok"
    (length,) = [int(line.partition(":")[2]) for line in answered if line.startswith("content-length:")]
    data = await reader.readexactly(length)
    writer.close()
    return json.loads(data)


@pytest.mark.usefixtures("worker")
async def test_open_webui_gets_base64(api: httpx.AsyncClient) -> None:
    (image,) = (await sent(api, OPEN_WEBUI))["data"]
    assert base64.b64decode(image["b64_json"]).startswith(PNG)


@pytest.mark.usefixtures("worker")
async def test_librechat_gets_an_address(api: httpx.AsyncClient) -> None:
    answer = await sent(api, LIBRECHAT)
    assert (await api.get(answer["data"][0]["url"])).content.startswith(PNG)
    assert [warning["field"] for warning in answer["warnings"]] == ["style", "size"]


@pytest.mark.slow
@pytest.mark.usefixtures("worker")
async def test_langchain_gets_addresses(api: httpx.AsyncClient) -> None:
    from langchain_community.utilities.dalle_image_generator import DallEAPIWrapper

    options: Any = {"model": "dall-e-3", "api_key": "any", "base_url": f"{api.base_url}/v1", "quality": "hd", "n": 2}
    urls = (await asyncio.to_thread(DallEAPIWrapper(**options).run, "a cat")).split("\n")
    assert len(set(urls)) == 2
    assert all([(await api.get(url)).content.startswith(PNG) for url in urls])


@pytest.fixture(scope="module")
def litellm() -> ModuleType:
    """The library, imported before a worker or a server runs: that takes seconds, for which they would be silent."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else it looks for prices on the internet
        return importlib.import_module("litellm")


@pytest.mark.slow
@pytest.mark.usefixtures("worker")
async def test_litellm_passes_everything_on(litellm: ModuleType, api: httpx.AsyncClient) -> None:
    def draw() -> Any:
        base = f"{api.base_url}/v1"
        options: Any = {"n": 2, "size": "1024x1024", "quality": "hd", "seed": 7}
        return litellm.image_generation("a cat", f"openai/{MODEL}", api_base=base, api_key="any", **options)

    answer = await asyncio.to_thread(draw)
    assert [base64.b64decode(image.b64_json)[:4] for image in answer.data] == [PNG, PNG]


def large_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each picture fill 100,000 bytes, which as base64 are a longer line than most readers take."""
    monkeypatch.setattr("tests.service.stand_in_worker._picture", lambda task: PNG + bytes(100_000))


async def test_aiohttp_reads_a_stream_by_lines(
    api: httpx.AsyncClient, worker: StandInWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    large_pictures(monkeypatch)
    body = {"prompt": "a cat", "stream": True, "n": 2}
    async with aiohttp.ClientSession() as session, session.post(f"{api.base_url}{PATH}", json=body) as answer:
        lines = [line.decode() async for line in answer.content]
        events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
        assert [event["type"] for event in events] == ["image_generation.completed"] * 2
        async with session.get(events[0]["url"]) as image:
            assert (await image.read()).startswith(PNG)


async def test_httpx_reads_a_stream_by_lines(
    api: httpx.AsyncClient, worker: StandInWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    large_pictures(monkeypatch)
    body = {"prompt": "a cat", "stream": True, "response_format": "b64_json"}
    async with api.stream("POST", PATH, json=body) as answer:
        lines = [line async for line in answer.aiter_lines()]
    (event,) = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    assert base64.b64decode(event["b64_json"]) == PNG + bytes(100_000)
