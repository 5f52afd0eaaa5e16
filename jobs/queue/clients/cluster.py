"""A client of a Redis Cluster that is away, to its callers, while the Cluster is not whole."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis.asyncio import RedisCluster
from redis.asyncio.cluster import ClusterPipeline, ClusterPubSub
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisClusterException


class WholeCluster(RedisCluster):
    """Raises RedisErrors alone: redis-py has other errors for a Cluster that loses a node, or has slots without one."""

    async def initialize(self, *args: Any, **options: Any) -> "WholeCluster":
        with _as_redis_errors():
            await super().initialize(*args, **options)
        return self

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        with _as_redis_errors():
            return await super().execute_command(*args, **options)

    def pipeline(self, transaction: Any = None, shard_hint: Any = None) -> ClusterPipeline:
        return _Pipeline(self, transaction)  # type: ignore[abstract]

    def pubsub(self, *args: Any, **options: Any) -> ClusterPubSub:
        """Pub/sub on any one node, each of which hears all messages. The client must know its nodes: `initialize`.

        Not on the node of the channel's slot, which redis-py takes: it asks for no other one when that node is dead.
        """
        return _PubSub(self, self.get_random_node(), **options)


class _Pipeline(ClusterPipeline):
    async def execute(self, *args: Any, **options: Any) -> list[Any]:
        with _as_redis_errors():
            return await super().execute(*args, **options)


class _PubSub(ClusterPubSub):
    async def execute_command(self, *args: Any, **options: Any) -> Any:
        with _as_redis_errors():
            return await super().execute_command(*args, **options)

    async def parse_response(self, *args: Any, **options: Any) -> Any:
        with _as_redis_errors():
            return await super().parse_response(*args, **options)


@contextmanager
def _as_redis_errors() -> Iterator[None]:
    """Raise what redis-py says of a Cluster that is not whole as a ConnectionError.

    A slot without a node is a KeyError. The caller that finds a node dead closes the connections of all callers, and
    one that is just being opened raises AttributeError.
    """
    try:
        yield
    except (RedisClusterException, KeyError, AttributeError) as error:
        raise RedisConnectionError(f"the Cluster is not whole: {error}") from error
