"""Pub/sub on any kind of Redis."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.asyncio import Redis
from redis.asyncio.client import PubSub


@asynccontextmanager
async def subscribed(redis: Redis, *channels: str, ignore_subscribe_messages: bool = True) -> AsyncIterator[PubSub]:
    """Subscribe to `channels` while the block runs; redis.exceptions.RedisError when Redis is away."""
    await redis.initialize()  # a Cluster client must know its nodes before it can subscribe
    async with redis.pubsub(ignore_subscribe_messages=ignore_subscribe_messages) as pubsub:
        await pubsub.subscribe(*channels)
        yield pubsub
