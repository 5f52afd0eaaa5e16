"""Refusals and waits by limits, each counted under its name."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable

import httpx
import pytest
from redis.asyncio import Redis

from jobs.settings import ApiSettings
from jobs.testing.samples import MODEL, sample_card
from jobs.testing.waiting import outcome, wait_until
from service.middleware import bounded_protocol
from tests.service.calls import ASYNC
from tests.service.pictures.files import picture
from tests.service.running_api import running_api
from tests.task_queue import TaskQueue

ME, OTHER = {"Authorization": "Bearer me"}, {"Authorization": "Bearer other"}
CAT = {"prompt": "a cat"}


async def test_a_body_that_does_not_end_is_not_waited_for(redis_url: str, free_port: Callable[[], int]) -> None:
    settings = ApiSettings(redis_url=redis_url, port=free_port(), body_timeout_s=0.1)
    async with running_api(settings) as api:
        reader, writer = await asyncio.open_connection("127.0.0.1", settings.port)
        head = b"POST /generate HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 20\r\n\r\n"
        writer.write(head + b"{")
        assert (await outcome(reader.read())).startswith(b"HTTP/1.1 408")
        writer.close()
        assert (await api.get("/healthz")).status_code == 200
        assert await refused_by(api, "body_time") == 1


async def test_a_second_request_whose_head_does_not_end_is_counted(
    api: httpx.AsyncClient, settings: ApiSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", settings.port)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (await outcome(reader.readuntil(b"}"))).startswith(b"HTTP/1.1 200")
    with monkeypatch.context() as patch:
        patch.setattr(bounded_protocol, "HEAD_TIMEOUT_S", 0.1)
        writer.write(b"G")
        assert (await outcome(reader.read())).startswith(b"HTTP/1.1 408")
    writer.close()
    assert await refused_by(api, "head") == 1


async def refused_by(api: httpx.AsyncClient, limit: str) -> int:
    """The calls that the limit has refused."""
    metrics = (await api.get("/metrics", headers=ME)).text
    (count,) = re.findall(rf'fourstep_limit_refusals_total{{limit="{limit}"}} (\d+)\.0', metrics)
    return int(count)


async def test_every_refusal_by_a_limit_is_counted_under_its_name(
    redis: Redis, redis_url: str, free_port: Callable[[], int]
) -> None:
    await TaskQueue(redis, MODEL).announce("w1", sample_card(), 600)
    few = {"rate_limit": 2, "max_images": 2, "max_queued_images": 2, "max_input_bytes": 1024, "max_input_pixels": 16}
    settings = ApiSettings.model_validate(few | {"redis_url": redis_url, "port": free_port(), "api_keys": "me,other"})
    async with running_api(settings) as api:
        assert (await api.post("/generate", json=CAT | {"num_images": 2}, headers=ME | ASYNC)).status_code == 202
        form = {"prompt": (None, "a cat"), "image": ("a.png", picture() + bytes(1024))}
        for limit, count, call in (
            ("images", 1, api.post("/generate", json=CAT, headers=ME)),
            ("queue", 1, api.post("/generate", json=CAT, headers=OTHER)),
            ("body", 1, api.post("/generate", content=b" " * 2**17, headers=OTHER)),
            ("body", 2, api.post("/generate", content=_in_parts(), headers=OTHER)),
            ("body", 3, api.post("/v1/images/generations", content=b" " * 2**17, headers=OTHER)),
            ("picture", 1, api.post("/v1/images/edits", files=form, headers=OTHER)),
        ):
            answer = await call
            assert answer.is_client_error
            assert await refused_by(api, limit) == count
        reader, writer = await asyncio.open_connection("127.0.0.1", settings.port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 70_000)
        assert (await outcome(reader.read(12))) == b"HTTP/1.1 431"
        writer.close()
        assert await refused_by(api, "head") == 1


async def _in_parts() -> AsyncIterator[bytes]:
    """A body whose length is not declared."""
    for _ in range(8):
        yield b" " * 2**14


async def test_calls_that_wait_with_their_pictures_are_counted(
    redis: Redis, redis_url: str, free_port: Callable[[], int]
) -> None:
    await TaskQueue(redis, MODEL).announce("w1", sample_card(), 600)
    settings = ApiSettings.model_validate(
        {"redis_url": redis_url, "port": free_port(), "api_keys": "me,other"}
        | {"max_answer_bytes": 2**20, "body_timeout_s": 600}
    )
    async with running_api(settings) as api:
        head = "POST /generate HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer me\r\nContent-Type: application/json\r\n"
        head += f"Content-Length: {2**20}\r\n\r\n"
        held = [(await asyncio.open_connection("127.0.0.1", settings.port))[1] for _ in range(3)]
        for writer in held:
            writer.write(head.encode() + b" " * 2**17)
        await wait_until(lambda: shows(api, "inputs_waiting", 2.0))
        assert await shows(api, "input_bytes", float(2**20))
        for writer in held:
            writer.close()
        await wait_until(lambda: shows(api, "inputs_waiting", 0.0))
        await wait_until(lambda: shows(api, "input_bytes", 0.0))


async def test_the_time_of_a_body_stands_still_while_its_call_waits_for_room(
    redis: Redis, redis_url: str, free_port: Callable[[], int]
) -> None:
    await TaskQueue(redis, MODEL).announce("w1", sample_card(), 600)
    settings = ApiSettings(
        redis_url=redis_url, port=free_port(), max_answer_bytes=2**20, timeout_s=600, body_timeout_s=600
    )
    head = "POST /generate HTTP/1.1\r\nHost: a\r\nPrefer: respond-async\r\nContent-Type: application/json\r\n"
    body = json.dumps(CAT).encode()
    async with running_api(settings) as api:
        first = api.post("/generate", content=body.ljust(2**20), headers={"Content-Type": "application/json"})
        holding = asyncio.create_task(first)  # no worker makes its image
        await wait_until(lambda: shows(api, "input_bytes", 2**20))
        settings.body_timeout_s = 0.2
        reader, writer = await asyncio.open_connection("127.0.0.1", settings.port)
        writer.write(f"{head}Content-Length: {5 * 2**16}\r\n\r\n".encode() + body.ljust(5 * 2**16))
        await wait_until(lambda: shows(api, "inputs_waiting", 1))
        later, other = await asyncio.open_connection("127.0.0.1", settings.port)
        other.write(f"{head}Content-Length: 20\r\n\r\n".encode())
        assert (await outcome(later.readline())).startswith(b"HTTP/1.1 408")
        other.close()
        assert await refused_by(api, "body_time") == 1
        holding.cancel()
        assert (await outcome(reader.readline())).startswith(b"HTTP/1.1 202")
        writer.close()


async def shows(api: httpx.AsyncClient, name: str, value: float) -> bool:
    metrics = (await api.get("/metrics", headers=ME)).text
    return [float(found) for found in re.findall(rf"^fourstep_{name} (\S+)", metrics, re.MULTILINE)] == [value]
