import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from jobs.models import JobEvent, Preview
from jobs.queue.job_events import MOST_PREVIEWS, JobEvents
from jobs.testing.samples import MODEL, sample_result, sample_tasks
from jobs.testing.waiting import outcome, wait_until
from tests.task_queue import TaskQueue


@pytest.fixture
async def events(redis: Redis) -> AsyncIterator[JobEvents]:
    receiver = JobEvents(redis)
    await receiver.start()
    yield receiver
    await receiver.aclose()


async def next_event(listener: asyncio.Queue[JobEvent | None]) -> JobEvent | None:
    return await outcome(listener.get())


async def test_each_settled_image_of_the_job_is_told(redis: Redis, events: JobEvents) -> None:
    queue, tasks = TaskQueue(redis, MODEL), sample_tasks(2)
    with events.listen(tasks[0].job_id) as listener:
        assert await next_event(listener) is None  # subscribed: what came before may have been missed
        await queue.admit(tasks, 10, 60, events.channel)
        made, broken = await queue.claim("w1", 2, block_s=0)
        await queue.commit(made, sample_result(made.task, b"x"), b"x", 60)
        await queue.fail(broken, "error", "broken")
        told = [await next_event(listener), await next_event(listener)]
    job_id = tasks[0].job_id
    assert told == [
        JobEvent(job_id=job_id, index=0, done=1, failed=0, total=2),
        JobEvent(job_id=job_id, index=1, done=2, failed=1, total=2),
    ]


async def test_a_broken_connection_is_told_and_mended(redis: Redis, events: JobEvents) -> None:
    queue, tasks = TaskQueue(redis, MODEL), sample_tasks(1)
    with events.listen(tasks[0].job_id) as listener:
        assert await next_event(listener) is None
        for client in await redis.client_list(_type="pubsub"):
            await redis.client_kill(client["addr"])
        assert await next_event(listener) is None
        await queue.admit(tasks, 10, 60, events.channel)
        (claim,) = await queue.claim("w1", 1, block_s=0)
        await queue.commit(claim, sample_result(claim.task, b"x"), b"x", 60)
        event = await next_event(listener)
    assert event is not None
    assert event.done == 1


async def test_previews_that_nobody_takes_do_not_fill_the_memory(redis: Redis) -> None:
    events = JobEvents(redis)
    job_id = "0" * 32
    fields = {"seed": 1, "step": 1, "steps": 4, "width": 8, "height": 8, "format": "jpeg", "b64": "x"}
    preview = Preview.model_validate({"job_id": job_id, "index": 0} | fields).to_record()
    event = JobEvent(job_id=job_id, index=0, done=1, failed=0, total=1).to_record()
    await events.start()
    with events.listen(job_id) as listener:
        await wait_until(lambda: listener.qsize() == 1)  # it is subscribed
        for _ in range(3 * MOST_PREVIEWS):
            await redis.publish(events.preview_channel, preview)
        await redis.publish(events.channel, event)

        async def came() -> bool:
            return any(isinstance(news, JobEvent) for news in listener._queue)  # type: ignore[attr-defined]

        await wait_until(came)
        assert listener.qsize() <= MOST_PREVIEWS + 1
    await events.aclose()
