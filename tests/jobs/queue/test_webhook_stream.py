"""Webhooks in Redis: put there with the end of their job, and lost by no process that dies."""

from collections import Counter

from redis.asyncio import Redis

from jobs.models import WebhookTarget
from jobs.queue.keys import ModelKeys
from jobs.queue.webhook_stream import WebhookStream
from jobs.testing.samples import MODEL, sample_results, sample_tasks
from jobs.testing.waiting import wait_until
from tests.task_queue import TaskQueue

TARGET = WebhookTarget(url="https://hooks.example/", caller="", base_url="https://here.example")
LONG = (3600.0, 3600.0)
SOON = (0.02, 3600.0)


async def test_a_job_s_end_is_put_there_once_with_its_last_image(redis: Redis) -> None:
    queue, stream = TaskQueue(redis, MODEL), WebhookStream(redis, MODEL)
    tasks = sample_tasks(2)
    await queue.admit(tasks, 10, 60, webhook=TARGET)
    first, second = await queue.claim("w1", 2, block_s=0)
    await queue.commit(first, sample_results(first.task, b"one")[0], b"one", ttl_s=60)
    assert await stream.take(LONG, 9, 9) == []
    await queue.commit(second, sample_results(second.task, b"two")[0], b"two", ttl_s=60)
    await queue.commit(second, sample_results(second.task, b"two")[0], b"two", ttl_s=60)
    await queue.cancel(tasks[0].job_id, "too late")
    (webhook,) = await stream.take(LONG, 9, 9)
    assert (webhook.job_id, webhook.target, webhook.attempts) == (tasks[0].job_id, TARGET, 1)


async def cancelled_jobs(redis: Redis, count: int, caller: str = "") -> list[str]:
    queue, target, jobs = TaskQueue(redis, MODEL), TARGET.model_copy(update={"caller": caller}), []
    for _ in range(count):
        (task,) = sample_tasks(1)
        await queue.admit([task], 1000, 60, client=caller, webhook=target)
        await queue.cancel(task.job_id, "by a test")
        jobs.append(task.job_id)
    return jobs


async def test_what_a_dead_process_had_is_taken_again_after_the_pause(redis: Redis) -> None:
    stream = WebhookStream(redis, MODEL)
    await cancelled_jobs(redis, 1)
    (later,) = await stream.take(LONG, 9, 9)
    assert await stream.take(LONG, 9, 9) == []
    await cancelled_jobs(redis, 1)
    (taken,) = await stream.take(SOON, 9, 9)
    again = []

    async def due() -> bool:
        again.extend(await stream.take(LONG, 9, 9))
        return bool(again)

    await wait_until(due)
    assert (again[0].job_id, again[0].attempts) == (taken.job_id, 2)
    await stream.sent(again[0], 60)
    await stream.sent(later, 60)
    assert await redis.zcard(ModelKeys(MODEL).webhooks_due("")) == 0


async def test_those_that_wait_for_long_do_not_hide_those_that_are_due(redis: Redis) -> None:
    """Many webhooks are at their second pause; behind them lies one at its first."""
    stream = WebhookStream(redis, MODEL)
    await cancelled_jobs(redis, 120)
    early = await stream.take(SOON, 400, 200)
    await wait_until(lambda: taken_again(stream, early))
    await cancelled_jobs(redis, 1)
    (late,) = await stream.take(SOON, 9, 9)
    found = []

    async def due() -> bool:
        found.extend(await stream.take(SOON, 9, 9))
        return bool(found)

    await wait_until(due)
    assert [webhook.job_id for webhook in found] == [late.job_id]


async def taken_again(stream: WebhookStream, early: list) -> bool:
    """Return whether every one of `early` has had its second attempt; counts down what is left of them."""
    second = {webhook.job_id for webhook in await stream.take(SOON, 400, 200)}
    early[:] = [webhook for webhook in early if webhook.job_id not in second]
    return not early


async def test_callers_have_shares_and_none_displaces_the_webhooks_of_another(redis: Redis) -> None:
    stream, keys = WebhookStream(redis, MODEL), ModelKeys(MODEL)
    (quiet,) = await cancelled_jobs(redis, 1, "quiet")
    await cancelled_jobs(redis, 5, "busy")
    callers = Counter(webhook.caller for webhook in await stream.take(SOON, 9, 4, {"busy": 2}))
    assert callers == {"quiet": 1, "busy": 2}
    async with redis.pipeline() as pipeline:
        for _ in range(10_000 - 5):
            pipeline.xadd(keys.webhooks("busy"), {"job": "j", "target": TARGET.to_record()})
        await pipeline.execute()
    (refused,) = await cancelled_jobs(redis, 1, "busy")
    ((letter, reason),) = await stream.given_up()
    assert (letter.job_id, letter.caller, letter.attempts) == (refused, "busy", 0)
    assert reason == "10000 webhooks of its caller waited already"
    taken = []

    async def of_the_quiet_one() -> bool:
        taken.extend(webhook.job_id for webhook in await stream.take(LONG, 9, 4, {"busy": 4}))
        return bool(taken)

    await wait_until(of_the_quiet_one)
    assert set(taken) == {quiet}


async def test_a_caller_takes_no_more_than_it_leaves_to_the_others(redis: Redis) -> None:
    stream = WebhookStream(redis, MODEL)
    await cancelled_jobs(redis, 5, "busy")
    assert len(await stream.take(LONG, 4, 4)) == 2
    assert await stream.take(LONG, 2, 4, {"busy": 2}) == []
    await cancelled_jobs(redis, 2, "quiet")
    assert [webhook.caller for webhook in await stream.take(LONG, 2, 4, {"busy": 2})] == ["quiet"]
    assert [webhook.caller for webhook in await stream.take(LONG, 1, 4, {"busy": 2})] == ["quiet"]


async def test_no_caller_is_asked_for_when_all_of_its_webhooks_are_sent(redis: Redis) -> None:
    stream, keys = WebhookStream(redis, MODEL), ModelKeys(MODEL)
    await cancelled_jobs(redis, 2, "one")
    sent, given_up = await stream.take(LONG, 9, 9)
    await stream.sent(sent, 60)
    await stream.give_up(given_up, "by a test")
    await stream.take(LONG, 9, 9)
    assert await redis.exists(keys.webhook_callers, keys.webhooks_due("one")) == 0
    assert await redis.xlen(keys.webhooks("one")) == 0
    ((letter, _),) = await stream.given_up()
    await stream.send_again(letter)
    (again,) = await stream.take(LONG, 9, 9)
    assert (again.job_id, again.caller, again.attempts) == (given_up.job_id, "one", 1)
