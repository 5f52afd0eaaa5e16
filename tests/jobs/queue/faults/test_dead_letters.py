"""Dead letters: kept with the failure, and the command that looks after them."""

import asyncio
import re
from collections.abc import Callable

import pytest
from redis.asyncio import Redis
from typer.testing import CliRunner, Result

import fourstep
from jobs.models import LONGEST_WAIT_S
from jobs.queue.dead_letters import DeadLetters
from jobs.testing.redis_servers import seconds
from jobs.testing.samples import MODEL, sample_card, sample_result, sample_tasks
from tests.task_queue import TaskQueue


@pytest.fixture
async def queue(redis: Redis) -> TaskQueue:
    queue = TaskQueue(redis, MODEL)
    await queue.announce("w1", sample_card(), ttl_s=600)
    return queue


async def bury(queue: TaskQueue, count: int) -> None:
    await queue.admit(sample_tasks(count, prompt="a poisoned apple"), 100, 60)
    for claim in await queue.claim("w1", count, block_s=0):
        assert await queue.bury(claim, "given up after 4 deliveries", 60)


async def command(redis_url: str, *arguments: str) -> Result:
    invoke = CliRunner().invoke
    return await asyncio.to_thread(
        invoke, fourstep.app, ["dead-letters", *arguments], env={"FOURSTEP_REDIS_URL": redis_url}
    )


async def test_a_buried_image_fails_once_and_its_task_is_kept(queue: TaskQueue, redis: Redis) -> None:
    tasks = sample_tasks(1)
    await queue.admit(tasks, 100, 60)
    (claim,) = await queue.claim("w1", 1, block_s=0)
    before = await seconds(redis)
    assert await queue.bury(claim, "given up", 60)
    after = await seconds(redis)
    assert not await queue.bury(claim, "given up", 60)
    (letter,) = await DeadLetters(redis, MODEL).read()
    assert letter.task is not None
    assert letter.task.model_copy(update={"created": tasks[0].created}) == tasks[0]
    assert letter.failure.detail == "given up"
    assert int(1000 * before) <= round(1000 * letter.buried) <= 1000 * after
    state = await queue.job(tasks[0].job_id)
    assert state is not None
    assert state.status == "failed"
    assert await queue.depth() == (0, 0)


async def test_letters_are_listed_replayed_and_dropped(queue: TaskQueue, redis: Redis, redis_url: str) -> None:
    await bury(queue, 3)
    listed = await command(redis_url, "list")
    first, second, third = [line.split()[0] for line in listed.stdout.splitlines()]
    assert "given up after 4 deliveries  'a poisoned apple'" in listed.stdout
    replayed = await command(redis_url, "replay", second)
    (job_id,) = re.findall("job ([0-9a-f]{32})", replayed.stdout)
    assert (await command(redis_url, "drop", third)).stdout == "1 dropped\n"
    assert [letter.id for letter in await DeadLetters(redis, MODEL).read()] == [first]
    (claim,) = await queue.claim("w1", 5, block_s=0)
    assert (claim.task.job_id, claim.task.seed) == (job_id, 8)
    assert claim.task.deadline == claim.task.created + LONGEST_WAIT_S
    assert await queue.commit(claim, sample_result(claim.task, b"x"), b"x", 60)
    assert (await command(redis_url, "replay")).exit_code == 0
    assert await queue.depth() == (1, 0)
    assert await DeadLetters(redis, MODEL).read() == []


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["drop", "1-1"], "no such dead letter: 1-1"),
        (["replay", "1-1", "2-1"], "no such dead letter: 1-1, 2-1"),
        (["list", "--model", "nobody"], f"--model must be one of: {MODEL}"),
    ],
)
async def test_mistakes_are_told_in_one_line(
    queue: TaskQueue, redis_url: str, arguments: list[str], reason: str
) -> None:
    result = await command(redis_url, *arguments)
    assert (result.exit_code, result.stderr) == (1, f"fourstep: {reason}\n")


async def test_without_redis_the_command_says_so(free_port: Callable[[], int]) -> None:
    result = await command(f"redis://127.0.0.1:{free_port()}/0", "list")
    assert result.exit_code == 1
    assert "Redis does not answer" in result.stderr
