"""Webhooks in Redis: put there with the end of their job, and lost by no process that dies."""

from redis.asyncio import Redis

from jobs.models import WebhookTarget
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
    assert await stream.take(LONG, 9) == []
    await queue.commit(second, sample_results(second.task, b"two")[0], b"two", ttl_s=60)
    await queue.commit(second, sample_results(second.task, b"two")[0], b"two", ttl_s=60)
    await queue.cancel(tasks[0].job_id, "too late")
    (webhook,) = await stream.take(LONG, 9)
    assert (webhook.job_id, webhook.target, webhook.attempts) == (tasks[0].job_id, TARGET, 1)


async def cancelled_jobs(redis: Redis, count: int) -> None:
    queue = TaskQueue(redis, MODEL)
    for _ in range(count):
        (task,) = sample_tasks(1)
        await queue.admit([task], 1000, 60, webhook=TARGET)
        await queue.cancel(task.job_id, "by a test")


async def test_what_a_dead_process_had_is_taken_again_after_the_pause(redis: Redis) -> None:
    stream = WebhookStream(redis, MODEL)
    await stream.take(LONG, 9)
    await cancelled_jobs(redis, 1)
    (taken,) = await stream.take(LONG, 9)
    assert await stream.take(LONG, 9) == []
    again = []

    async def due() -> bool:
        again.extend(await stream.take(SOON, 9))
        return bool(again)

    await wait_until(due)
    assert (again[0].job_id, again[0].attempts) == (taken.job_id, 2)
    await stream.sent(again[0])
    assert await stream.take((0.001,), 9) == []


async def test_those_that_wait_for_long_do_not_hide_those_that_are_due(redis: Redis) -> None:
    """More than a page of webhooks are at their second pause; behind them lies one at its first."""
    stream = WebhookStream(redis, MODEL)
    await stream.take(LONG, 9)
    await cancelled_jobs(redis, 120)
    early = await stream.take(LONG, 200)
    await wait_until(lambda: taken_again(stream, early))
    await cancelled_jobs(redis, 1)
    (late,) = await stream.take(LONG, 9)
    found = []

    async def due() -> bool:
        found.extend(await stream.take(SOON, 9))
        return bool(found)

    await wait_until(due)
    assert [webhook.job_id for webhook in found] == [late.job_id]


async def taken_again(stream: WebhookStream, early: list) -> bool:
    """Return whether every one of `early` has had its second attempt; counts down what is left of them."""
    second = {webhook.job_id for webhook in await stream.take(SOON, 200)}
    early[:] = [webhook for webhook in early if webhook.job_id not in second]
    return not early
