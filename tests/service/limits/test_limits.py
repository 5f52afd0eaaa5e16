"""Limits count what costs, by key or address, and whoever is over one is told which."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

import httpx
import pytest
from redis.asyncio import Redis

from jobs.models import DiverseSet, ImageTask, SourcePicture
from jobs.settings import ApiSettings
from jobs.testing.samples import MODEL, sample_card, sample_tasks
from jobs.testing.waiting import outcome, wait_until
from service import housekeeping
from service.limits.rate_limit import rate_of
from tests.service.calls import ASYNC, is_problem
from tests.service.pictures.files import b64, picture
from tests.service.running_api import running_api
from tests.task_queue import TaskQueue

ME, OTHER = {"Authorization": "Bearer me"}, {"Authorization": "Bearer other"}
CAT = {"prompt": "a cat"}


def with_keys(redis_url: str, port: int, **changes: object) -> ApiSettings:
    return ApiSettings.model_validate({"redis_url": redis_url, "port": port, "api_keys": "me,other"} | changes)


@pytest.mark.usefixtures("worker")
async def test_a_set_costs_the_evaluations_of_its_candidates(redis_url: str, free_port: Callable[[], int]) -> None:
    async with running_api(with_keys(redis_url, free_port(), evaluation_rate_limit=100)) as api:
        large = CAT | {"select": {"diverse": True, "candidates": 64}}  # 64 first steps, and three more of one image
        assert (await api.post("/generate", json=large, headers=ME)).status_code == 200
        refused = await api.post("/generate", json=large, headers=ME)
        assert is_problem(refused, 429, "rate-limited")
        assert refused.headers["ratelimit-policy"] == '"evaluations";q=100;w=60'
        assert (await api.post("/generate", json=CAT, headers=ME)).status_code == 200
        never = await api.post("/generate", json=CAT | {"num_images": 26}, headers=OTHER)
        assert is_problem(never, 422, "invalid-request")
        assert never.json()["errors"][0]["limit"] == 100
        metrics = (await api.get("/metrics", headers=ME)).text
        assert 'fourstep_limit_refusals_total{limit="evaluations"} 1.0' in metrics


async def test_a_picture_costs_the_steps_that_change_it(
    redis: Redis, redis_url: str, free_port: Callable[[], int]
) -> None:
    await TaskQueue(redis, MODEL).announce("w1", sample_card(), 600)
    changed = CAT | {"image": b64(picture()), "strength": 0.5}  # the last of four steps
    given_back = changed | {"strength": 0, "select": {"diverse": True, "candidates": 64}}
    async with running_api(with_keys(redis_url, free_port(), evaluation_rate_limit=100, max_images=64)) as api:
        for fits in (changed | {"num_images": 40}, CAT | {"num_images": 15}, given_back):
            assert (await api.post("/generate", json=fits, headers=ME | ASYNC)).status_code == 202
        over = await api.post("/generate", json=CAT | {"num_images": 25}, headers=ME | ASYNC)
        assert is_problem(over, 429, "rate-limited")


@pytest.mark.parametrize(
    ("strength", "select", "cost"),
    [
        (1.0, None, 4),
        (0.75, None, 2),
        (0.5, None, 1),
        (0.0, None, 0),
        (0.75, DiverseSet(images=1, candidates=4), 5),  # two steps of the one that is chosen, one of each other
        (0.5, DiverseSet(images=1, candidates=4), 4),
    ],
)
def test_what_a_picture_costs(strength: float, select: DiverseSet | None, cost: int) -> None:
    source = SourcePicture(image="0" * 64, strength=strength)
    tasks = [task.model_copy(update={"source": source, "select": select}) for task in sample_tasks(1)]
    limit = rate_of("me", tasks, sample_card(), with_keys("redis://", 8000, evaluation_rate_limit=10), "n")
    assert limit is not None
    assert limit.per_minute == {"evaluations": (cost, 10)}


@pytest.mark.parametrize(
    ("path", "asked", "field"),
    [
        ("/generate", {"num_images": 3}, "num_images"),
        ("/generate", {"seeds": [1, 2, 3]}, "seeds"),
        ("/v1/images/generations", {"n": 3}, "n"),
        ("/v1/images/generations", {"seeds": [1, 2, 3]}, "seeds"),
        ("/v1/images/generations", {"n": 3, "select": {"diverse": True}}, "select.candidates"),
        ("/v1/images/generations", {"select": {"diverse": True, "candidates": 6}}, "select.candidates"),
    ],
)
async def test_a_call_beyond_a_minutes_rate_is_told_its_own_field(
    redis: Redis, redis_url: str, free_port: Callable[[], int], path: str, asked: dict, field: str
) -> None:
    await TaskQueue(redis, MODEL).announce("w1", sample_card(), 600)
    limits = {"max_images": 3, "rate_limit": 3, "evaluation_rate_limit": 8}
    async with running_api(with_keys(redis_url, free_port(), **limits)) as api:
        answer = await api.post(path, json=CAT | asked, headers=ME)
    assert [error["field"] for error in answer.json()["errors"]] == [field]


async def test_a_rate_holds_over_all_models(redis: Redis, redis_url: str, free_port: Callable[[], int]) -> None:
    for model in ("one", "other"):
        await TaskQueue(redis, model).announce("w1", sample_card(model), 600)
    async with running_api(with_keys(redis_url, free_port(), rate_limit=8, max_images=8)) as api:
        calls = [
            await api.post("/generate", json=CAT | {"num_images": 8, "model": model}, headers=ME | ASYNC)
            for model in ("one", "other")
        ]
        assert [call.status_code for call in calls] == [202, 429]


async def test_a_job_belongs_to_its_key(redis: Redis, redis_url: str, free_port: Callable[[], int]) -> None:
    await TaskQueue(redis, MODEL).announce("w1", sample_card(), 600)
    async with running_api(with_keys(redis_url, free_port())) as api:
        job = (await api.post("/generate", json=CAT, headers=ME | ASYNC)).headers["location"]
        for method, path in (("GET", job), ("GET", f"{job}/events"), ("DELETE", job)):
            assert is_problem(await api.request(method, path, headers=OTHER), 404, "job-not-found")
        assert (await api.get(job, headers=ME)).json()["status"] == "queued"


async def test_what_is_overdue_leaves_the_queue_without_a_worker(redis: Redis, redis_url: str) -> None:
    queue = TaskQueue(redis, MODEL)
    held, late, patient = [_due(sample_tasks(2), seconds) for seconds in (0.01, 0.01, 600.0)]
    await queue.admit(held, 4, 600)
    await queue.claim("w1", 2, 0)
    await queue.admit(late, 4, 600)
    await queue.admit(patient, 4, 600)
    assert (await queue.admit(sample_tasks(1), 4, 600)).outcome == "full"
    expired = 0

    async def swept() -> bool:
        nonlocal expired
        expired += await queue.expire_overdue(600)
        return expired > 0

    await wait_until(swept)
    assert await queue.expire_overdue(600) == 0
    assert expired == 2
    states = [await queue.job(tasks[0].job_id) for tasks in (held, late, patient)]
    assert [state.status for state in states if state] == ["running", "expired", "queued"]
    assert await queue.depth() == (2, 2)
    assert (await queue.admit(sample_tasks(2), 4, 600)).ok


def _due(tasks: list[ImageTask], seconds: float) -> list[ImageTask]:
    now = time.time()
    return [task.model_copy(update={"created": now, "deadline": now + seconds}) for task in tasks]


async def test_the_api_ends_overdue_jobs_by_itself(
    redis: Redis, redis_url: str, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "PAUSE_S", 0.05)
    await TaskQueue(redis, MODEL).announce("w1", sample_card(), 600)
    async with running_api(ApiSettings(redis_url=redis_url, port=free_port())) as api:
        call = await api.post("/generate", json=CAT | {"timeout": 0.2}, headers=ASYNC)

        async def ended() -> bool:
            return (await api.get(call.headers["location"])).json()["status"] == "expired"

        await wait_until(ended)


async def test_event_streams_are_counted(redis: Redis, redis_url: str, free_port: Callable[[], int]) -> None:
    await TaskQueue(redis, MODEL).announce("w1", sample_card(), 600)
    async with running_api(with_keys(redis_url, free_port(), max_event_streams=2)) as api:
        mine, theirs = [
            (await api.post("/generate", json=CAT, headers=key | ASYNC)).headers["location"] for key in (ME, OTHER)
        ]
        async with (
            api.stream("GET", f"{mine}/events", headers=ME),
            api.stream("GET", f"{mine}/events", headers=ME),
            api.stream("GET", f"{theirs}/events", headers=OTHER) as others,
        ):
            assert others.status_code == 200
            refused = await api.get(f"{mine}/events", headers=ME)
            assert is_problem(refused, 429, "too-many-streams")
            assert int(refused.headers["retry-after"]) > 0

        async def room_again() -> bool:
            async with api.stream("GET", f"{mine}/events", headers=ME) as stream:
                return stream.status_code == 200

        await wait_until(room_again)


async def test_one_address_cannot_take_all_connections(redis_url: str, free_port: Callable[[], int]) -> None:
    settings = ApiSettings(redis_url=redis_url, port=free_port(), max_connections=5)
    async with running_api(settings) as api:
        assert (await api.get("/healthz")).status_code == 200
        held = [await asyncio.open_connection("127.0.0.1", settings.port) for _ in range(4)]
        reader, writer = await asyncio.open_connection("127.0.0.1", settings.port)
        with suppress(ConnectionResetError):
            assert await outcome(reader.read()) == b""
        writer.close()
        assert "fourstep_connections_refused_total 1.0" in (await api.get("/metrics")).text
        for _, writer in held:
            writer.close()

        async def room_again() -> bool:
            reader, writer = await asyncio.open_connection("127.0.0.1", settings.port)
            try:
                writer.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                return (await outcome(reader.read())).startswith(b"HTTP/1.1 200")
            except ConnectionResetError:
                return False
            finally:
                writer.close()

        await wait_until(room_again)


@pytest.mark.parametrize("hosts", [b"", b"Host: a\r\nHost: b\r\n"], ids=["none", "two"])
async def test_a_request_has_one_host(api: httpx.AsyncClient, settings: ApiSettings, hosts: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", settings.port)
    writer.write(b"GET /healthz HTTP/1.1\r\n" + hosts + b"Connection: close\r\n\r\n")
    assert (await outcome(reader.read())).startswith(b"HTTP/1.1 400")
    writer.close()
