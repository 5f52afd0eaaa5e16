"""One record that cannot be read costs nothing but itself."""

import asyncio
import json

import pytest
from redis.asyncio import Redis

from jobs.models import Preview, PreviewSubscription
from jobs.queue.dead_letters import DeadLetters
from jobs.queue.job_events import JobEvents
from jobs.queue.keys import ModelKeys
from jobs.testing.samples import MODEL, sample_card, sample_result, sample_set, sample_tasks
from jobs.testing.waiting import outcome, wait_until
from tests.task_queue import TaskQueue

KEYS = ModelKeys(MODEL)


@pytest.fixture
def queue(redis: Redis) -> TaskQueue:
    return TaskQueue(redis, MODEL)


async def test_a_task_is_buried_and_its_neighbours_are_claimed(queue: TaskQueue, redis: Redis) -> None:
    good, bad = sample_tasks(2)
    broken = bad.model_copy(update={"format": "gif"})
    buried: list[int] = []
    queue.buried = buried.append
    await queue.admit([good, broken], 10, 600)
    (claim,) = await queue.claim("w1", 8, block_s=0)
    assert claim.task.seed == good.seed
    state = await queue.job(bad.job_id)
    assert state is not None
    assert [failure.index for failure in state.failures] == [1]
    assert "format" in state.failures[0].detail
    (letter,) = await DeadLetters(redis, MODEL).read()
    assert letter.task is None
    assert buried == [1]
    assert await queue.depth() == (0, 1)


async def test_a_set_is_buried_whole_also_when_it_is_taken_over(queue: TaskQueue) -> None:
    task = sample_set(3, 8)
    await queue.admit([task.model_copy(update={"mode": "exact"})], 10, 600)
    await queue._read_group("silent", 8, None)
    await wait_until(lambda: _is_settled(queue, task.job_id))
    state = await queue.job(task.job_id)
    assert state is not None
    assert [failure.index for failure in state.failures] == [0, 1, 2]


async def _is_settled(queue: TaskQueue, job_id: str) -> bool:
    await queue.reclaim("w1", 0.001, 8)
    state = await queue.job(job_id)
    return state is not None and state.settled


@pytest.mark.parametrize("record", [b"", b"no json", b"[]", b'{"job_id": 1}', b"\xff"])
async def test_a_task_without_a_job_is_removed(queue: TaskQueue, redis: Redis, record: bytes) -> None:
    await queue.admit(sample_tasks(1), 10, 600)
    await redis.xadd(KEYS.tasks, {"task": record})
    await redis.xadd(KEYS.tasks, {"another": "field"})
    assert len(await queue.claim("w1", 8, block_s=0)) == 1
    assert await queue.depth() == (0, 1)


async def test_a_task_of_a_newer_version_is_handed_back_as_it_was(queue: TaskQueue, redis: Redis) -> None:
    await queue.admit(sample_tasks(1), 10, 600)
    ((entry, fields),) = await redis.xrange(KEYS.tasks)
    newer = json.dumps(json.loads(fields[b"task"]) | {"of_another_version": 1}).encode()
    await redis.xdel(KEYS.tasks, entry)
    await redis.xadd(KEYS.tasks, {"task": newer})
    await queue.requeue(await queue.claim("w1", 1, block_s=0))
    ((_, fields),) = await redis.xrange(KEYS.tasks)
    assert fields[b"task"] == newer


async def test_a_result_fails_its_image_alone(queue: TaskQueue, redis: Redis) -> None:
    tasks = sample_tasks(2)
    await queue.admit(tasks, 10, 600)
    first, second = await queue.claim("w1", 2, block_s=0)
    await queue.commit(first, sample_result(first.task, b"x"), b"x", 600)
    for record in ("result no json", 'result {"index": 0}', "something else"):
        await redis.hset(KEYS.job(tasks[0].job_id), "image:0", record)
        await queue.commit(second, sample_result(second.task, b"y"), b"y", 600)
        state = await queue.job(tasks[0].job_id)
        assert state is not None
        assert ([failure.index for failure in state.failures], len(state.results)) == ([0], 1)


async def test_a_card_hides_its_worker_only(queue: TaskQueue, redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    await queue.announce("good", sample_card(), ttl_s=600)
    await queue.announce("bad", sample_card(), ttl_s=600)
    for key in (KEYS.card, KEYS.worker("bad")):
        await redis.set(key, '{"name": "of another version"}', ex=600)
    for _ in range(2):
        assert await queue.card() is None
        assert [lease.worker_id for lease in await queue.workers()] == ["good"]
    assert caplog.text.count("card cannot be read") <= 1


async def test_events_and_previews_are_skipped(queue: TaskQueue, redis: Redis) -> None:
    events = JobEvents(redis)
    await events.start()
    with events.listen("job") as listener:
        assert await outcome(listener.get()) is None
        for channel in (events.channel, events.preview_channel):
            for record in (b"no json", b"{}", b"\xff"):
                await redis.publish(channel, record)
        fields = {"seed": 7, "step": 1, "steps": 4, "width": 64, "height": 64, "format": "jpeg", "b64": ""}
        preview = Preview.model_validate({"job_id": "job", "index": 0, **fields})
        await queue.publish_preview(preview, events.preview_channel)
        assert await outcome(listener.get()) == preview
    await events.aclose()


async def test_any_error_of_the_reader_of_events_is_logged_and_mended(
    redis: Redis, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = JobEvents(redis)
    dispatch = events._dispatch

    def broken(message: dict[str, bytes]) -> None:
        monkeypatch.setattr(events, "_dispatch", dispatch)
        raise RuntimeError("not foreseen")

    monkeypatch.setattr(events, "_dispatch", broken)
    await events.start()
    with events.listen("job") as listener:
        assert await outcome(listener.get()) is None
    await events.aclose()
    assert "not foreseen" in caplog.text


async def test_subscriptions_to_previews_are_skipped(queue: TaskQueue, redis: Redis) -> None:
    subscriptions = queue.preview_subscriptions()
    first = asyncio.create_task(anext(subscriptions))
    good = PreviewSubscription(job_id="job", channel="here")

    async def heard() -> bool:
        await redis.publish(KEYS.preview_subscriptions, b"no json")
        await queue.subscribe_to_previews(good)
        return first.done()

    await wait_until(heard)
    assert await first == good
    await subscriptions.aclose()  # type: ignore[attr-defined]
