"""The worker without an engine, which the front end is measured with."""

import asyncio

from redis.asyncio import Redis

from bench.service.null_worker import CARD, MODEL, NullWorker
from jobs.testing.samples import sample_tasks
from jobs.testing.waiting import wait_until
from tests.task_queue import TaskQueue


async def test_it_settles_what_the_front_end_admits(redis: Redis) -> None:
    queue = TaskQueue(redis, MODEL)
    tasks = sample_tasks(3)
    await queue.admit(tasks, 10, 600, model_sha=CARD.sha256)
    working = asyncio.create_task(NullWorker(queue, 0).run())

    async def made() -> bool:
        state = await queue.job(tasks[0].job_id)
        return state is not None and len(state.results) == 3

    await wait_until(made)
    working.cancel()
