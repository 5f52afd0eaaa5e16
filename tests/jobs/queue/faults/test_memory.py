"""Redis at its ``maxmemory``: each call is carried out whole or not at all, and nothing admitted is lost."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError

from jobs.queue.admission import Admission, IdempotencyKey, RateLimit
from jobs.queue.claims import Claim
from jobs.testing.samples import MODEL, sample_card, sample_result, sample_tasks
from jobs.testing.waiting import wait_until
from tests.task_queue import TaskQueue

TTL_S = 60.0
ONCE = IdempotencyKey("someone", "order 7", "ab")
RATE = RateLimit("someone", {"images": (3, 100)})
MIB = 2**20


@pytest.fixture
def queue(redis: Redis) -> TaskQueue:
    return TaskQueue(redis, MODEL)


@asynccontextmanager
async def memory_limit(redis: Redis, limit: int) -> AsyncIterator[None]:
    await redis.config_set("maxmemory", limit)
    try:
        yield
    finally:
        await redis.config_set("maxmemory", 0)


async def contents(redis: Redis) -> dict[bytes, object]:
    """Every key with its value, and whether it expires."""
    found: dict[bytes, object] = {}
    for key in await redis.keys("*"):
        kind = await redis.type(key)
        readers: dict[bytes, Callable] = {b"hash": redis.hgetall, b"set": redis.smembers, b"string": redis.get}
        value = await (redis.xinfo_stream(key, full=True) if kind == b"stream" else readers[kind](key))
        found[key] = (value, await redis.pttl(key) > 0)
    return found


async def used(redis: Redis) -> int:
    """Return the bytes that count for the limit, once the leftovers of earlier tests have been freed."""

    async def freed() -> bool:
        return not (await redis.info("memory"))["lazyfree_pending_objects"]

    await wait_until(freed)
    return (await redis.info("memory"))["used_memory"]


async def claimed(queue: TaskQueue, count: int = 3) -> list[Claim]:
    await queue.admit(sample_tasks(count), 100, TTL_S)
    return await queue.claim("w1", count, block_s=0)


ADMISSIONS: dict[str, dict] = {"plain": {}, "idempotent": {"idempotency_key": ONCE}, "rated": {"rate": RATE}}


@pytest.mark.parametrize("conditions", ADMISSIONS.values(), ids=ADMISSIONS)
@pytest.mark.parametrize("before", [0, 2], ids=["first job", "later job"])
async def test_an_admission_without_memory_is_refused_and_leaves_nothing(
    queue: TaskQueue, redis: Redis, conditions: dict, before: int
) -> None:
    if before:
        await queue.admit(sample_tasks(before), 100, TTL_S)
    tasks, held = sample_tasks(3), await contents(redis)
    async with memory_limit(redis, 1):
        foreseen = await queue.foreseen(tasks, 100, **conditions)
        assert foreseen
        assert foreseen.outcome == "store-full"
        assert (await queue.admit(tasks, 100, TTL_S, **conditions)).outcome == "store-full"
        assert await contents(redis) == held
    admission = await queue.admit(tasks, 100, TTL_S, **conditions)
    assert admission.ok


async def test_a_call_is_not_charged_when_memory_ends_before_it_is_queued(
    queue: TaskQueue, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue_all, rate = queue._queue_all, RateLimit("someone", {"images": (3, 3)})

    async def without_memory(*arguments: Any) -> Admission:
        await redis.config_set("maxmemory", 1)
        return await queue_all(*arguments)

    async with memory_limit(redis, 0):
        with monkeypatch.context() as patch:
            patch.setattr(queue, "_queue_all", without_memory)
            assert (await queue.admit(sample_tasks(3), 100, TTL_S, rate=rate)).outcome == "store-full"
    assert (await queue.admit(sample_tasks(3), 100, TTL_S, rate=rate)).ok


async def test_a_finished_call_is_replayed_without_memory(queue: TaskQueue, redis: Redis) -> None:
    first = await queue.admit(sample_tasks(1), 100, TTL_S, idempotency_key=ONCE)
    async with memory_limit(redis, 1):
        assert (await queue.admit(sample_tasks(1), 100, TTL_S, idempotency_key=ONCE)).outcome == "running"
        (claim,) = await queue.claim("w1", 1, block_s=0)
        with pytest.raises(OutOfMemoryError):
            await queue.commit(claim, sample_result(claim.task, b"x"), b"x", TTL_S)
    assert await queue.commit(claim, sample_result(claim.task, b"x"), b"x", TTL_S)
    async with memory_limit(redis, 1):
        again = await queue.admit(sample_tasks(1), 100, TTL_S, idempotency_key=ONCE)
    assert (again.outcome, again.job_id) == ("finished", first.job_id)


async def test_a_result_that_does_not_fit_changes_nothing_and_fits_later(queue: TaskQueue, redis: Redis) -> None:
    claim, *_ = await claimed(queue)
    held = await contents(redis)
    async with memory_limit(redis, 1):
        for _ in range(2):
            with pytest.raises(OutOfMemoryError):
                await queue.commit(claim, sample_result(claim.task, b"x"), b"x", TTL_S)
        assert await contents(redis) == held
    assert await queue.commit(claim, sample_result(claim.task, b"x"), b"x", TTL_S)
    assert not await queue.commit(claim, sample_result(claim.task, b"x"), b"x", TTL_S)


async def test_wherever_the_limit_lies_a_result_is_stored_whole_or_not_at_all(queue: TaskQueue, redis: Redis) -> None:
    claims, data, stored = await claimed(queue, 24), bytes(MIB // 4), []
    for step, claim in enumerate(claims):
        unique = data + bytes([step])
        held = await contents(redis)
        async with memory_limit(redis, await used(redis) + step * MIB // 16):
            try:
                stored.append(await queue.commit(claim, sample_result(claim.task, unique), unique, TTL_S))
            except OutOfMemoryError:
                assert await contents(redis) == held
    assert 0 < len(stored) < len(claims)
    assert all(stored)
    state = await queue.job(claims[0].task.job_id)
    assert state is not None
    assert [len(image or b"") for image in await queue.images(state.results)] == [len(data) + 1] * len(stored)
    assert await queue.depth() == (0, len(claims) - len(stored))


async def _failed(queue: TaskQueue, claims: list[Claim]) -> None:
    assert await queue.fail(claims[0], "expired", "too late")


async def _buried(queue: TaskQueue, claims: list[Claim]) -> None:
    assert await queue.bury(claims[0], "nobody survives it", TTL_S)


async def _cancelled(queue: TaskQueue, claims: list[Claim]) -> None:
    assert await queue.cancel(claims[0].task.job_id, "not wanted") == 3


async def _handed_back(queue: TaskQueue, claims: list[Claim]) -> None:
    await queue.requeue(claims)
    assert len(await queue.claim("w2", 3, block_s=0)) == 3


async def _kept(queue: TaskQueue, claims: list[Claim]) -> None:
    assert await queue.renew("w1", claims) == []
    await wait_until(lambda: queue.reclaim("w2", idle_s=0.001, count=3))


async def _announced(queue: TaskQueue, claims: list[Claim]) -> None:
    await queue.announce("w1", sample_card(), ttl_s=600)
    assert [lease.worker_id for lease in await queue.workers()] == ["w1"]
    await queue.deregister("w1")


async def _watched(queue: TaskQueue, claims: list[Claim]) -> None:
    await queue.watch(claims[0].task.job_id, "a channel")
    assert (await queue.job(claims[0].task.job_id)) is not None


GO_ON = [_failed, _buried, _cancelled, _handed_back, _kept, _announced, _watched]


@pytest.mark.parametrize("call", GO_ON, ids=lambda call: call.__name__)
async def test_what_ends_or_keeps_work_goes_on_without_memory(
    queue: TaskQueue, redis: Redis, call: Callable[[TaskQueue, list[Claim]], Awaitable[None]]
) -> None:
    claims = await claimed(queue)
    async with memory_limit(redis, 1):
        await call(queue, claims)


async def test_a_result_kept_for_later_learns_that_its_job_has_ended(queue: TaskQueue, redis: Redis) -> None:
    claim, *_ = await claimed(queue)
    async with memory_limit(redis, 1):
        with pytest.raises(OutOfMemoryError):
            await queue.commit(claim, sample_result(claim.task, b"x"), b"x", TTL_S)
        await queue.cancel(claim.task.job_id, "its deadline has passed", "expired")
        assert not await queue.commit(claim, sample_result(claim.task, b"x"), b"x", TTL_S)


async def test_the_last_tenth_of_memory_is_for_results_of_what_was_admitted(queue: TaskQueue, redis: Redis) -> None:
    await redis.set("filler", bytes(8 * MIB))
    async with memory_limit(redis, (await used(redis)) * 100 // 89):
        admitted = 0
        while (await queue.admit(sample_tasks(8, prompt="x" * 2000), 10_000, TTL_S)).ok:
            admitted += 8
        assert admitted > 8
        for claim in await queue.claim("w1", 100, block_s=0):
            data = bytes(8192) + claim.entry_id.encode()
            assert await queue.commit(claim, sample_result(claim.task, data), data, TTL_S)


async def test_a_job_is_not_forgotten_before_its_deadline(queue: TaskQueue, redis: Redis) -> None:
    tasks = sample_tasks(2)
    tasks = [task.model_copy(update={"deadline": task.created + 5000}) for task in tasks]
    await queue.admit(tasks, 100, ttl_s=600)
    first, _ = await queue.claim("w1", 2, block_s=0)
    await queue.commit(first, sample_result(first.task, b"x"), b"x", ttl_s=600)
    lifetimes = [await redis.pttl(key) for key in await redis.keys("*:job:*") + await redis.keys("*:image:*")]
    assert len(lifetimes) == 2
    assert all(5_000_000 < lifetime <= 5_600_000 for lifetime in lifetimes)
