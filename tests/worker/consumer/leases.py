"""Leases that look old."""

from redis.asyncio import Redis

from jobs.queue.keys import WORKER_GROUP, ModelKeys
from tests.task_queue import TaskQueue

OLD_S = 3600.0
"""Idle for longer than any test may take."""


async def make_old(redis: Redis, queue: TaskQueue) -> int:
    """Let every lease look as if nobody had renewed it for `OLD_S`; their number."""
    tasks = ModelKeys(queue.model).tasks
    held = await redis.xpending_range(tasks, WORKER_GROUP, "-", "+", 1000)
    for entry in held:
        await redis.xclaim(
            tasks, WORKER_GROUP, entry["consumer"], 0, [entry["message_id"]], idle=int(OLD_S * 1000), justid=True
        )
    return len(held)


async def none_is_old(redis: Redis, queue: TaskQueue) -> bool:
    tasks = ModelKeys(queue.model).tasks
    return not await redis.xpending_range(tasks, WORKER_GROUP, "-", "+", 1, idle=int(OLD_S * 1000))
