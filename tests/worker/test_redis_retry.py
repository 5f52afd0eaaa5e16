"""Patience with Redis, and an end to it when the task is cancelled."""

import asyncio

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from jobs.testing.waiting import outcome
from worker.redis_retry import until_redis_answers


async def test_the_operation_is_repeated_until_it_succeeds() -> None:
    faults = [RedisConnectionError("gone"), OSError("gone")]

    async def operation() -> str:
        if faults:
            raise faults.pop()
        return "there"

    assert await until_redis_answers(operation) == "there"
    assert faults == []


@pytest.mark.parametrize("answer", [None, RedisConnectionError("gone")])
async def test_a_cancellation_that_the_client_swallows_still_ends_the_task(answer: Exception | None) -> None:
    begun = asyncio.Event()

    async def swallowing() -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if answer is not None:
                raise answer from None

    task = asyncio.create_task(until_redis_answers(swallowing))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await outcome(task)


async def test_other_errors_are_not_retried() -> None:
    async def operation() -> None:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        await until_redis_answers(operation)
