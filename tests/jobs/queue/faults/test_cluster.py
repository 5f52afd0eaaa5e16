"""A Cluster, also one that is not whole: to callers it is a Redis that is away, never an error that nobody expects."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from jobs.queue.clients.subscription import subscribed
from jobs.queue.connection import is_writable, open_redis
from jobs.queue.keys import KNOWN_MODELS, ModelKeys
from jobs.testing import redis_servers
from jobs.testing.samples import MODEL
from jobs.testing.waiting import outcome, wait_until
from tests.task_queue import TaskQueue


@pytest.mark.slow
async def test_a_worker_may_listen_before_it_does_anything_else(tmp_path: Path) -> None:
    with redis_servers.cluster(tmp_path) as redis_url:
        redis = open_redis(redis_url)
        cancelled = aiter(TaskQueue(redis, MODEL).cancelled_jobs())
        listening = asyncio.ensure_future(anext(cancelled))
        other = TaskQueue(open_redis(redis_url), MODEL)

        async def heard() -> bool:
            await other._redis.publish(other._keys.cancellations, "job")
            return listening.done()

        await wait_until(heard)
        assert await listening == "job"
        await cancelled.aclose()
        for client in (redis, other._redis):
            await client.aclose()


async def _in_a_pipeline(redis: Redis) -> None:
    async with redis.pipeline(transaction=False) as pipeline:
        pipeline.get("key")
        await pipeline.execute()


async def _by_listening(redis: Redis) -> None:
    async with subscribed(redis, "channel"):
        pass


async def _alone(redis: Redis) -> None:
    await redis.get("key")


@pytest.mark.parametrize("call", [_alone, _in_a_pipeline, _by_listening])
async def test_one_that_is_away_raises_what_any_redis_does(
    call: Callable[[Redis], Awaitable[None]], free_port: Callable[[], int]
) -> None:
    redis = open_redis(f"redis+cluster://127.0.0.1:{free_port()}")
    with pytest.raises(RedisError):
        await outcome(call(redis))
    await redis.aclose()


@pytest.mark.slow
@pytest.mark.parametrize("call", [_alone, _in_a_pipeline, _by_listening])
async def test_one_with_slots_that_no_node_has_raises_what_any_redis_does(
    call: Callable[[Redis], Awaitable[None]], tmp_path: Path
) -> None:
    config = "cluster-enabled yes\ncluster-require-full-coverage no"
    port, nodes_port = redis_servers.free_port(), redis_servers.free_port()
    with redis_servers.server(tmp_path, f"{config}\ncluster-port {nodes_port}", port=port):
        redis = open_redis(f"redis+cluster://127.0.0.1:{port}")
        with pytest.raises(RedisError):
            await outcome(call(redis))
        await redis.aclose()


@pytest.mark.slow
async def test_callers_whose_connections_another_one_closes_get_an_error_of_redis(tmp_path: Path) -> None:
    """redis-py closes those of all callers when one finds a node dead, also those that are just being opened."""
    with redis_servers.cluster(tmp_path) as redis_url:
        redis = open_redis(redis_url)
        over = False

        async def call_on(call: Callable[[Redis], Awaitable[None]]) -> None:
            while not over:
                with suppress(RedisError):
                    await call(redis)
                await asyncio.sleep(0)

        calls = (_alone, _in_a_pipeline, _by_listening)
        calling = [asyncio.create_task(call_on(call)) for call in calls for _ in range(20)]
        for _ in range(50):
            await wait_until(lambda: _works(_alone, redis))
            await redis.aclose()
        over = True
        await outcome(asyncio.gather(*calling))
        await redis.aclose()


@pytest.mark.slow
async def test_one_who_only_listens_leaves_a_node_that_died(tmp_path: Path) -> None:
    with redis_servers.cluster_with_replica(tmp_path, "channel") as servers:
        redis = open_redis(servers.url)
        await outcome(_by_listening(redis))
        servers.kill_primary()
        await wait_until(lambda: _works(_by_listening, redis))
        await redis.aclose()


async def _works(call: Callable[[Redis], Awaitable[None]], redis: Redis) -> bool:
    try:
        await call(redis)
    except RedisError:
        return False
    return True


@pytest.mark.slow
async def test_one_is_unwritable_where_the_node_of_the_registry_or_of_a_model_takes_nothing(tmp_path: Path) -> None:
    with redis_servers.cluster(tmp_path) as redis_url:
        redis: Any = open_redis(redis_url)
        await redis.initialize()
        registry = redis.get_node_from_key(KNOWN_MODELS)
        nodes = {model: redis.get_node_from_key(ModelKeys(model).tasks) for model in "abcdefgh"}
        model, node = next((model, node) for model, node in nodes.items() if node is not registry)
        assert await is_writable(redis, [model])
        await redis.config_set("min-replicas-to-write", 1, target_nodes=node)
        assert [await is_writable(redis, models) for models in ([model], [])] == [False, True]
        await redis.config_set("min-replicas-to-write", 1, target_nodes=registry)
        assert not await is_writable(redis, [])
        await redis.aclose()
