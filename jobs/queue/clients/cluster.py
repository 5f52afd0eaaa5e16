"""A client of a Redis Cluster that is away, to its callers, while the Cluster is not whole."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis.asyncio import RedisCluster
from redis.asyncio.cluster import ClusterPipeline
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisClusterException


class WholeCluster(RedisCluster):
    """Raises RedisErrors alone: redis-py has other errors for a Cluster in which slots have no node."""

    async def initialize(self, *args: Any, **options: Any) -> "WholeCluster":
        with as_redis_errors():
            await super().initialize(*args, **options)
        return self

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        with as_redis_errors():
            return await super().execute_command(*args, **options)

    def pipeline(self, transaction: Any = None, shard_hint: Any = None) -> ClusterPipeline:
        return _Pipeline(self, transaction)  # type: ignore[abstract]


class _Pipeline(ClusterPipeline):
    async def execute(self, *args: Any, **options: Any) -> list[Any]:
        with as_redis_errors():
            return await super().execute(*args, **options)


@contextmanager
def as_redis_errors() -> Iterator[None]:
    """Raise what redis-py says of a Cluster that is not whole as a ConnectionError."""
    try:
        yield
    except (RedisClusterException, KeyError) as error:  # a slot without a node is a KeyError
        raise RedisConnectionError(f"the Cluster is not whole: {error}") from error
