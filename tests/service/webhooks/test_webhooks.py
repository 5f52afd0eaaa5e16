"""The end of an asynchronous job reaches the address that was asked for, once, signed, whatever the receiver does."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis
from standardwebhooks import Webhook, WebhookVerificationError
from typer.testing import CliRunner

from fourstep import app
from jobs.models import WebhookTarget
from jobs.queue.keys import KNOWN_MODELS, ModelKeys
from jobs.queue.webhook_stream import WebhookStream
from jobs.settings import ApiSettings
from jobs.testing.samples import MODEL, sample_tasks
from jobs.testing.waiting import wait_until
from service.routes import metrics
from service.webhooks import sender
from tests.service.calls import ASYNC, is_problem
from tests.service.running_api import running_api
from tests.service.stand_in_worker import FAILING_PROMPT, StandInWorker, held
from tests.service.webhooks.receiver import HANG, Received, Receiver, receiving
from tests.task_queue import TaskQueue

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
KEYS: dict[str, Any] = {"api_keys": "one, two"}

pytestmark = pytest.mark.usefixtures("worker")


@pytest.fixture
def settings(redis_url: str, free_port: Callable[[], int]) -> ApiSettings:
    return ApiSettings(redis_url=redis_url, port=free_port(), webhook_secret=SECRET, webhook_private=True)  # type: ignore[arg-type]


@pytest.fixture
async def receiver(free_port: Callable[[], int]) -> AsyncIterator[Receiver]:
    async with receiving(free_port()) as receiver:
        yield receiver


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses of a moment, and attempts that do not wait for long."""
    monkeypatch.setattr(sender, "PAUSES_S", (0.05,) * 5)
    monkeypatch.setattr(sender, "ATTEMPT_S", 0.5)
    monkeypatch.setattr(sender, "POLL_S", 0.02)


async def ask(api: httpx.AsyncClient, url: str | None, key: str = "one", **body: object) -> str:
    """Queue a job with a webhook, and return its id."""
    body = {"prompt": "a cat", **body} | ({"webhook": url} if url else {})
    answer = await api.post("/generate", json=body, headers=ASYNC | {"Authorization": f"Bearer {key}"})
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


async def secret(api: httpx.AsyncClient, key: str = "one") -> str:
    return (await api.get("/webhooks/secret", headers={"Authorization": f"Bearer {key}"})).json()["secret"]


def verified(received: Received, key: str) -> dict[str, Any]:
    return Webhook(key).verify(received.body, received.headers)


async def arrived(receiver: Receiver, count: int = 1) -> list[Received]:
    await wait_until(lambda: len(receiver.received) >= count)
    return receiver.received


async def test_it_says_what_became_of_the_job_and_is_signed(api: httpx.AsyncClient, receiver: Receiver) -> None:
    job_id = await ask(api, receiver.url, seed=7, num_images=2)
    (received,) = await arrived(receiver)
    event = verified(received, await secret(api))
    assert received.path == "/hook?token=1"
    assert received.headers["webhook-id"] == f"msg_{job_id}"
    assert event["type"] == "job.completed"
    assert event["data"] == (await api.get(f"/jobs/{job_id}")).json()
    assert (await api.get(event["data"]["images"][1]["url"])).status_code == 200


async def test_every_end_is_told(api: httpx.AsyncClient, receiver: Receiver, worker: StandInWorker) -> None:
    await ask(api, receiver.url, prompt=FAILING_PROMPT)
    await arrived(receiver)
    worker.busy = True
    job_id = await ask(api, receiver.url)
    await held(worker, 1)
    await api.delete(f"/jobs/{job_id}")
    types = [json.loads(received.body)["type"] for received in await arrived(receiver, 2)]
    assert types == ["job.failed", "job.cancelled"]


@pytest.mark.usefixtures("soon")
async def test_a_receiver_that_fails_hangs_and_redirects_gets_it_in_the_end(
    api: httpx.AsyncClient, receiver: Receiver
) -> None:
    receiver.answers = [500, HANG, 307, 503]
    job_id = await ask(api, receiver.url)
    received = await arrived(receiver, 5)
    assert {(one.path, one.headers["webhook-id"], one.body) for one in received} == {
        ("/hook?token=1", f"msg_{job_id}", received[0].body)
    }
    assert verified(received[-1], await secret(api))
    await wait_until(lambda: counted(api, "sent", 1))
    await wait_until(lambda: counted(api, "failed", 4))


@pytest.mark.usefixtures("soon")
async def test_the_end_of_a_job_is_told_also_when_its_images_are_gone(
    settings: ApiSettings, receiver: Receiver, worker: StandInWorker, redis: Redis
) -> None:
    receiver.answers, worker.busy = [500] * 3, True
    async with running_api(settings.model_copy(update={"result_ttl_s": 0.001})) as api:
        job_id = await ask(api, receiver.url)
        await held(worker, 1)
        await api.delete(f"/jobs/{job_id}")
        received = await arrived(receiver, 4)
        assert {json.loads(one.body)["type"] for one in received} == {"job.cancelled"}
        await wait_until(lambda: counted(api, "sent", 1))
        await wait_until(lambda: gone(redis, job_id))


async def gone(redis: Redis, job_id: str) -> bool:
    return not await redis.exists(ModelKeys(MODEL).job(job_id))


async def test_a_job_is_known_for_all_attempts_and_for_a_day_after_the_last(redis: Redis) -> None:
    queue, stream, (task,) = TaskQueue(redis, MODEL), WebhookStream(redis, MODEL), sample_tasks(1)
    target = WebhookTarget(url="https://hooks.example/", caller="", base_url="https://here.example")
    await queue.admit([task], 10, 60, webhook=target)
    await queue.cancel(task.job_id, "by a test", ttl_s=60)
    job = ModelKeys(MODEL).job(task.job_id)
    assert await redis.ttl(job) > sum(sender.PAUSES_S) + len(sender.PAUSES_S) * sender.ATTEMPT_S
    (webhook,) = await stream.take(sender.PAUSES_S, 9, 9)
    await stream.give_up(webhook, "it answered 500")
    assert await redis.ttl(job) > 20 * 3600
    await stream.send_again((await stream.given_up())[0][0])
    (again,) = await stream.take(sender.PAUSES_S, 9, 9)
    await stream.sent(again, 60)
    assert await redis.ttl(job) <= 60


async def counted(api: httpx.AsyncClient, outcome: str, count: int) -> bool:
    metrics = (await api.get("/metrics", headers={"Authorization": "Bearer one"})).text
    return f'fourstep_webhooks_total{{outcome="{outcome}"}} {count}.0' in metrics


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize(("answers", "attempts"), [([500] * 6, 6), ([500, 410], 2)], ids=["fails", "is gone"])
async def test_it_is_given_up_listed_and_sent_again_by_hand(
    api: httpx.AsyncClient,
    receiver: Receiver,
    redis: Redis,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
    answers: list[int],
    attempts: int,
) -> None:
    receiver.answers = list(answers)
    job_id = await ask(api, receiver.url)
    stream = WebhookStream(redis, MODEL)
    await wait_until(stream.given_up)
    assert len(receiver.received) == attempts
    monkeypatch.setenv("FOURSTEP_REDIS_URL", redis_url)
    listed = await asyncio.to_thread(CliRunner().invoke, app, ["webhooks", "list"])
    assert f"{job_id}  it answered {answers[-1]}  '{receiver.url}'" in listed.output
    replayed = await asyncio.to_thread(CliRunner().invoke, app, ["webhooks", "replay", job_id])
    assert replayed.output.split() == [job_id]
    last = (await arrived(receiver, attempts + 1))[-1]
    assert last.body == receiver.received[0].body
    assert await stream.given_up() == []


async def test_two_processes_send_each_once(
    api: httpx.AsyncClient, settings: ApiSettings, receiver: Receiver, free_port: Callable[[], int]
) -> None:
    async with running_api(settings.model_copy(update={"port": free_port()})) as other:
        asked = [await ask(one, receiver.url) for _ in range(10) for one in (api, other)]
        received = await arrived(receiver, 20)
        await wait_until(lambda: counted_by_both(api, other, 20))
    assert sorted(json.loads(one.body)["data"]["id"] for one in received) == sorted(asked)


async def counted_by_both(one: httpx.AsyncClient, other: httpx.AsyncClient, count: int) -> bool:
    sums = [(await api.get("/metrics")).text.partition('webhooks_total{outcome="sent"} ')[2] for api in (one, other)]
    return sum(float(text.split("\n")[0] or 0) for text in sums) == count


async def test_each_key_has_a_secret_and_may_have_an_address(
    settings: ApiSettings, receiver: Receiver, free_port: Callable[[], int]
) -> None:
    settings = ApiSettings.model_validate(settings.model_dump() | KEYS | {"webhooks": f"one={receiver.url}"})
    async with running_api(settings) as api:
        secrets = [await secret(api, key) for key in ("one", "two")]
        assert len({*secrets, SECRET}) == 3
        await ask(api, None, "one")
        (received,) = await arrived(receiver)
        assert verified(received, secrets[0])
        with pytest.raises(WebhookVerificationError):
            verified(received, secrets[1])
        await ask(api, None, "two")
        await ask(api, receiver.url, "two")
        assert verified((await arrived(receiver, 2))[1], secrets[1])


async def test_a_caller_whose_receiver_hangs_delays_nobody_else(
    settings: ApiSettings, receiver: Receiver, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "ATTEMPT_S", 3600.0)
    monkeypatch.setattr(metrics, "OVERDUE_S", 0.0)
    settings = ApiSettings.model_validate(settings.model_dump() | KEYS | {"max_webhooks": 5})
    async with running_api(settings) as api, receiving(free_port(), *[HANG] * 100) as hanging:
        for _ in range(settings.max_webhooks + 3):
            await ask(api, hanging.url, "one")
        await wait_until(lambda: len(hanging.received) == settings.max_webhooks)
        await ask(api, receiver.url, "two")
        await arrived(receiver)
        assert len(hanging.received) == settings.max_webhooks
        await wait_until(lambda: wait(api, MODEL, 3))


async def wait(api: httpx.AsyncClient, model: str, count: int) -> bool:
    metrics = (await api.get("/metrics", headers={"Authorization": "Bearer one"})).text
    return f'fourstep_webhooks_waiting{{model="{model}"}} {count}.0' in metrics


async def test_webhooks_that_are_not_taken_count_after_a_time_though_their_model_is_no_longer_announced(
    api: httpx.AsyncClient, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "MOST_AT_ONCE", 0)
    queue, (task,) = TaskQueue(redis, "old"), sample_tasks(1)
    await redis.sadd(KNOWN_MODELS, "old")
    target = WebhookTarget(url="https://hooks.example/", caller="", base_url="https://here.example")
    await queue.admit([task], 10, 60, webhook=target)
    await queue.cancel(task.job_id, "by a test")
    monkeypatch.setattr(metrics, "OVERDUE_S", 3600.0)
    assert await wait(api, "old", 0)
    monkeypatch.setattr(metrics, "OVERDUE_S", 0.0)
    await wait_until(lambda: wait(api, "old", 1))


async def test_it_needs_an_asynchronous_call_and_an_operator_who_wants_it(
    api: httpx.AsyncClient, redis_url: str, free_port: Callable[[], int]
) -> None:
    body = {"prompt": "a cat", "webhook": "https://hooks.example/"}
    answer = await api.post("/generate", json=body)
    assert is_problem(answer, 422, "invalid-request")
    assert "respond-async" in answer.json()["errors"][0]["message"]
    async with running_api(ApiSettings(redis_url=redis_url, port=free_port())) as without:
        answer = await without.post("/generate", json=body, headers=ASYNC)
        assert "FOURSTEP_WEBHOOK_SECRET" in answer.json()["errors"][0]["message"]
        assert is_problem(await without.get("/webhooks/secret"), 404, "no-webhooks")
