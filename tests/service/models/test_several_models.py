"""Several models behind one API: which is the default, and when the API is ready."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from redis.asyncio import Redis

from jobs.settings import ApiSettings
from jobs.testing.waiting import wait_until
from tests.service.running_api import running_api
from tests.service.stand_in_worker import StandInWorker

REQUEST = {"prompt": "a cat", "seed": 1}


@asynccontextmanager
async def serving(redis: Redis, model: str) -> AsyncIterator[StandInWorker]:
    stand_in = StandInWorker(redis, model)
    running = asyncio.create_task(stand_in.run())
    await wait_until(stand_in.queue.workers)
    yield stand_in
    stand_in.stopped = True
    await running
    await stand_in.queue.deregister(f"stand-in-{model}")


@pytest.fixture
def second_by_name(settings: ApiSettings) -> ApiSettings:
    return settings.model_copy(update={"default_model": "b-student"})


async def test_a_call_that_names_no_model_gets_the_default_one(second_by_name: ApiSettings, redis: Redis) -> None:
    async with (
        serving(redis, "a-teacher") as teacher,
        serving(redis, "b-student") as student,
        running_api(second_by_name) as api,
    ):
        assert (await api.post("/generate", json=REQUEST)).json()["model"] == "b-student"
        assert (await api.post("/generate", json=REQUEST | {"model": "a-teacher"})).json()["model"] == "a-teacher"
        models = (await api.get("/models")).json()["models"]
        assert [(model["name"], model["evaluations"]) for model in models] == [("b-student", 4), ("a-teacher", 4)]
        assert [model["id"] for model in (await api.get("/v1/models")).json()["data"]] == ["b-student", "a-teacher"]
        assert (await api.get("/readyz")).json()["models"] == ["b-student", "a-teacher"]
        assert len(teacher.made) == len(student.made) == 1


async def test_without_a_setting_the_first_by_name_that_has_a_worker(api: httpx.AsyncClient, redis: Redis) -> None:
    async with serving(redis, "a-teacher"), serving(redis, "b-student"):
        assert (await api.post("/generate", json=REQUEST)).json()["model"] == "a-teacher"


async def test_not_ready_and_no_other_model_until_the_default_one_is_there(
    second_by_name: ApiSettings, redis: Redis
) -> None:
    async with serving(redis, "a-teacher"), running_api(second_by_name) as api:
        assert (await api.get("/readyz")).status_code == 503
        answer = await api.post("/generate", json=REQUEST)
        assert (answer.status_code, answer.json()["type"]) == (503, "urn:fourstep:problem:no-model")
        unknown = await api.post("/generate", json=REQUEST | {"model": "c"})
        assert (unknown.status_code, unknown.json()["errors"][0]["limit"]) == (422, ["a-teacher"])
