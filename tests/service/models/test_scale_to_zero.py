"""A default model whose workers are all gone, for longer than its card is kept: calls wait and bring one back."""

from collections.abc import Callable

import httpx
from redis.asyncio import Redis

from jobs.queue.keys import ModelKeys
from jobs.settings import ApiSettings
from jobs.testing.samples import MODEL, sample_card
from jobs.testing.waiting import outcome, wait_until
from tests.service.calls import ASYNC, is_problem
from tests.service.running_api import running_api
from tests.service.stand_in_worker import StandInWorker
from tests.task_queue import TaskQueue

BODY = {"prompt": "a cat", "timeout": 600}


async def gone_for_days(redis: Redis, *models: str) -> None:
    """Leave Redis as it is a day after the last worker of each model."""
    for model in models:
        queue = TaskQueue(redis, model)
        await queue.announce("w1", sample_card(model), ttl_s=600)
        await queue.deregister("w1")
        assert await redis.pttl(ModelKeys(model).card) > 0
        await redis.delete(ModelKeys(model).card)


async def test_calls_for_the_default_model_wait_for_its_next_worker(
    redis: Redis, redis_url: str, free_port: Callable[[], int]
) -> None:
    await gone_for_days(redis, MODEL, "another")
    settings = ApiSettings(redis_url=redis_url, port=free_port(), default_model=MODEL)
    async with running_api(settings) as api:
        assert (await api.get("/readyz?workers=0")).json() == {"status": "ready", "models": []}
        assert is_problem(await api.get("/readyz"), 503, "no-worker")
        job = (await api.post("/generate", json={"prompt": "a cat"}, headers=ASYNC)).headers["location"]
        assert await redis.xlen(ModelKeys(MODEL).tasks) == 1  # what KEDA scales by
        assert is_problem(await api.post("/generate", json=BODY | {"model": "another"}), 422, "invalid-request")
        worker = StandInWorker(redis)
        await worker.queue.announce("w2", sample_card(), ttl_s=600)
        await outcome(worker._turn())
        await wait_until(lambda: completed(api, job))


async def completed(api: httpx.AsyncClient, job: str) -> bool:
    return (await api.get(job)).json()["status"] == "completed"


async def test_a_default_model_that_never_had_a_worker_is_named(redis_url: str, free_port: Callable[[], int]) -> None:
    async with running_api(ApiSettings(redis_url=redis_url, port=free_port(), default_model="new")) as api:
        answer = await api.post("/generate", json=BODY)
        assert is_problem(answer, 503, "no-model")
        assert "has ever announced new" in answer.json()["detail"]
