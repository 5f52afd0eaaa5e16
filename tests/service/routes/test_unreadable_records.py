"""Records that this version cannot read, beside those that it can."""

import asyncio

import httpx
import pytest
from redis.asyncio import Redis

from jobs.queue.keys import KNOWN_MODELS, ModelKeys
from jobs.testing.samples import MODEL
from jobs.testing.waiting import wait_until
from tests.service.calls import is_problem
from tests.service.stand_in_worker import StandInWorker, held, paused

REQUEST = {"prompt": "a cat", "seed": 1}
CARD = '{"name": "of another version"}'


async def test_another_model_s_card_harms_no_call(api: httpx.AsyncClient, worker: StandInWorker, redis: Redis) -> None:
    other = ModelKeys("a-model")
    await redis.sadd(KNOWN_MODELS, "a-model")
    await redis.set(other.card, CARD, ex=600)
    await redis.sadd(other.workers, "w1")
    await redis.set(other.worker("w1"), CARD, px=600_000)
    assert (await api.post("/generate", json=REQUEST)).status_code == 200
    for path in ("/readyz", "/metrics", "/models", "/v1/models"):
        assert (await api.get(path)).status_code == 200
    assert is_problem(await api.get(f"/jobs/{32 * '0'}"), 404, "job-not-found")


async def test_a_model_whose_last_card_cannot_be_read_is_known_by_its_workers(
    api: httpx.AsyncClient, worker: StandInWorker, redis: Redis
) -> None:
    await paused(worker)

    async def served() -> bool:
        await redis.set(ModelKeys(MODEL).card, CARD, ex=600)
        return (await api.get("/readyz")).status_code == 200 and await redis.get(ModelKeys(MODEL).card) == CARD.encode()

    await wait_until(served)


async def test_a_task_fails_with_a_reason_and_the_next_are_made(
    api: httpx.AsyncClient, worker: StandInWorker, redis: Redis
) -> None:
    await paused(worker)
    call = asyncio.create_task(api.post("/generate", json=REQUEST))
    tasks = ModelKeys(MODEL).tasks

    async def queued() -> list:
        return await redis.xrange(tasks)

    await wait_until(queued)
    ((entry, fields),) = await queued()
    await redis.xdel(tasks, entry)
    await redis.xadd(tasks, {"task": fields[b"task"].replace(b'"fast"', b'"of another version"')})
    worker.paused = False
    answer = await call
    assert is_problem(answer, 500, "generation-error")
    assert "mode" in answer.json()["detail"]
    assert (await api.post("/generate", json=REQUEST)).status_code == 200


async def test_an_event_harms_no_later_one(
    api: httpx.AsyncClient, worker: StandInWorker, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.waiting.POLL_S", 3600.0)  # what ends a call is its event
    worker.busy = True
    call = asyncio.create_task(api.post("/generate", json=REQUEST))
    await held(worker, 1)
    channels = await redis.pubsub_channels("fourstep:events:*")
    for channel in channels:
        await redis.publish(channel, "of another version")
    worker.busy = False
    (claim,) = await _again(worker)
    await worker._settle(claim)
    assert (await call).status_code == 200


async def _again(worker: StandInWorker) -> list:
    taken: list = []

    async def taken_over() -> list:
        return taken.extend(await worker.queue.reclaim(worker._id, 0.001, 1)) or taken

    await wait_until(taken_over)
    return taken
