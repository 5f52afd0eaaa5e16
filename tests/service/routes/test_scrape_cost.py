"""The cost of a scrape does not grow with the queue, nor its answer with what clients send."""

import asyncio

import httpx
import pytest
from redis.asyncio import Redis

from jobs.queue import job_events
from jobs.testing.samples import MODEL, sample_tasks
from service import app
from tests.service.stand_in_worker import StandInWorker
from tests.task_queue import TaskQueue


@pytest.fixture(autouse=True)
def _nothing_else_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the housekeeping nor the channel of events sends commands, however long a test takes."""
    monkeypatch.setattr(app, "expire_overdue_forever", lambda *_: asyncio.sleep(3600))
    monkeypatch.setattr(job_events, "SILENCE_S", 3600)


async def test_a_scrape_takes_as_many_commands_for_a_long_queue_as_for_a_short_one(
    api: httpx.AsyncClient, redis: Redis, worker: StandInWorker
) -> None:
    worker.busy = True
    queue = TaskQueue(redis, MODEL)
    await queue.admit(sample_tasks(1), 1000, 60)
    short = await _commands_of_a_scrape(api, redis)
    for number in range(20):
        tasks = [task.model_copy(update={"job_id": f"{number:032x}"}) for task in sample_tasks(20)]
        await queue.admit(tasks, 1000, 60)
    assert sum(await queue.depth()) == 401
    assert await _commands_of_a_scrape(api, redis) == short
    assert sum(short.values()) == 13


@pytest.mark.slow
async def test_the_answer_has_as_many_series_after_odd_calls_as_before(
    api: httpx.AsyncClient, worker: StandInWorker
) -> None:
    async def call(number: int) -> None:
        await api.get(f"/{number}")
        await api.get(f"/jobs/{number:032x}")
        await api.post("/generate", json={"prompt": f"a cat {number}", "seed": number})
        await api.post("/generate", json={"prompt": "a cat", "model": f"model {number}"})

    await call(0)
    before = len((await api.get("/metrics")).text.splitlines())
    before = len((await api.get("/metrics")).text.splitlines())  # the scrape itself is counted from the second on
    for number in range(1, 30):
        await call(number)
    assert len((await api.get("/metrics")).text.splitlines()) == before


async def _commands_of_a_scrape(api: httpx.AsyncClient, redis: Redis) -> dict[str, int]:
    """The commands of a second scrape, which finds its connections and scripts there."""
    await api.get("/metrics")
    await redis.config_resetstat()
    assert (await api.get("/metrics")).is_success
    commands = await redis.info("commandstats")
    of_the_worker = {"config|resetstat", "evalsha", "set", "sadd", "hsetnx", "time", "hmget", "xreadgroup"}
    counts = {name.removeprefix("cmdstat_"): stat["calls"] for name, stat in commands.items()}
    return {name: calls for name, calls in counts.items() if name not in of_the_worker}
