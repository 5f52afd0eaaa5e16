"""Tasks that a worker holds."""

from jobs.queue.claims import Claim
from jobs.testing.samples import sample_tasks
from tests.task_queue import TaskQueue

TTL_S = 600.0


async def admit_and_claim(queue: TaskQueue, count: int, worker: str = "w1") -> list[Claim]:
    assert (await queue.admit(sample_tasks(count), 100, TTL_S)).ok
    return await queue.claim(worker, count, block_s=0)
