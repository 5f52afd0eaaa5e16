"""Usage of a model by each API key: counted with each result, in the same step, and kept for good."""

from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from jobs.queue.keys import ModelKeys


@dataclass(frozen=True)
class Usage:
    """Images made, and the seconds that they kept the device busy."""

    images: int = 0
    work_s: float = 0.0


async def read_usage(redis: Redis, model: str) -> dict[str, Usage]:
    """The usage of `model` by the hash of the API key, '' for calls without one."""
    client: Any = redis
    fields = await client.hgetall(ModelKeys(model).usage)
    clients = {name.partition(b":")[2] for name in fields}
    return {
        one.decode(): Usage(int(fields.get(b"images:" + one, 0)), float(fields.get(b"work_s:" + one, 0.0)))
        for one in sorted(clients)
    }
