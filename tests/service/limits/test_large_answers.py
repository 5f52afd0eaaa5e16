"""Answers of any size: written while they are read, to callers that read slowly or not at all."""

import asyncio
import base64
import hashlib
import json
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest
from redis.asyncio import Redis

from jobs.models import ImageTask
from jobs.queue.claims import Claim
from jobs.settings import ApiSettings
from jobs.testing.samples import sample_result
from jobs.testing.waiting import outcome, wait_until
from tests.service.api_process import api_process
from tests.service.running_api import running_api
from tests.service.stand_in_worker import StandInWorker

MIB = 2**20
LARGE = 3 * MIB // 2


def picture(task: ImageTask) -> bytes:
    return hashlib.shake_128(f"{task.prompt} {task.seed}".encode()).digest(LARGE)


class LargeImages(StandInWorker):
    """Makes images of 1.5 MB of noise."""

    async def _settle(self, claim: Claim) -> None:
        data = picture(claim.task)
        self.made.append(claim.task)
        await self.queue.commit(claim, sample_result(claim.task, data), data, ttl_s=600)


@pytest.fixture
async def large_images(redis: Redis) -> AsyncIterator[LargeImages]:
    worker = LargeImages(redis)
    running = asyncio.create_task(worker.run())
    await wait_until(worker.queue.workers)
    yield worker
    worker.stopped = True
    await running


@pytest.mark.usefixtures("large_images")
@pytest.mark.parametrize("path", ["/generate", "/v1/images/generations"])
async def test_a_large_answer_is_whole(api: httpx.AsyncClient, path: str) -> None:
    body: dict = {"prompt": "a cat", "seed": 1} | ({"num_images": 3} if path == "/generate" else {"n": 3})
    answer = await api.post(path, json=body)
    assert int(answer.headers["content-length"]) == len(answer.content) > 3 * LARGE
    images = answer.json()["images" if path == "/generate" else "data"]
    for image in images:
        data = base64.b64decode(image.get("b64") or image["b64_json"], validate=True)
        assert data == hashlib.shake_128(f"a cat {image['seed']}".encode()).digest(LARGE)
    raw = await api.post("/generate", json={"prompt": "a cat", "seed": 1}, headers={"Accept": "image/png"})
    assert raw.content == hashlib.shake_128(b"a cat 1").digest(LARGE)
    again = await api.get(f"/images/{hashlib.sha256(raw.content).hexdigest()}.png")
    assert again.content == raw.content


@pytest.mark.slow
@pytest.mark.usefixtures("large_images")
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells the most memory that a process had")
async def test_two_calls_of_64_large_images_and_unread_replays_take_little_memory(
    redis_url: str, free_port: Callable[[], int]
) -> None:
    port = free_port()
    async with api_process(redis_url, port, FOURSTEP_TIMEOUT_S="600") as (process, client):

        async def call(number: int) -> str:
            body = {"prompt": f"a cat {number}", "num_images": 64, "seed": 64 * number}
            sent = hashlib.sha256()
            headers = {"Idempotency-Key": f"call {number}"}
            async with client.stream("POST", "/generate", json=body, headers=headers) as answer:
                assert answer.status_code == 200
                async for part in answer.aiter_raw():
                    sent.update(part)
            return sent.hexdigest()

        await asyncio.gather(call(1), call(2))
        unread = [await _unread(port, 1 + number % 2) for number in range(20)]
        assert len(await call(1)) == 64
        for writer in unread:
            writer.close()
        status = Path(f"/proc/{process.pid}/status").read_text()  # noqa: ASYNC240
        (most_kib,) = re.findall(r"VmHWM:\s+(\d+) kB", status)
        assert int(most_kib) < 256 * 1024


async def _unread(port: int, number: int) -> asyncio.StreamWriter:
    """Ask for the images of an earlier call and read no more than the beginning of the answer."""
    body = json.dumps({"prompt": f"a cat {number}", "num_images": 64, "seed": 64 * number}).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    head = f"POST /generate HTTP/1.1\r\nHost: a\r\nIdempotency-Key: call {number}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    assert (await outcome(reader.readline())).startswith(b"HTTP/1.1 200")
    return writer


@pytest.mark.slow
@pytest.mark.usefixtures("large_images")
async def test_an_answer_that_is_not_read_ends_and_makes_room(redis_url: str, free_port: Callable[[], int]) -> None:
    settings = ApiSettings(
        redis_url=redis_url, port=free_port(), timeout_s=600, max_answer_bytes=MIB, answer_timeout_s=600
    )
    impatient = settings.model_copy(update={"port": free_port(), "answer_timeout_s": 0.3})
    async with running_api(settings) as api, running_api(impatient) as other:
        first = {"prompt": "a cat 1", "num_images": 64, "seed": 64}
        assert (await api.post("/generate", json=first, headers={"Idempotency-Key": "call 1"})).status_code == 200
        writers = [await _unread(impatient.port, 1) for _ in range(5)]

        async def all_have_ended() -> bool:
            metrics = (await other.get("/metrics")).text
            ended = ('limit_refusals_total{limit="answer_time"} 5.0', "answers_waiting 0.0", "answer_bytes 0.0")
            return all(f"fourstep_{line}\n" in metrics for line in ended)

        await wait_until(all_have_ended)  # two have the room at a time: the others had it after them
        for writer in writers:
            writer.close()
