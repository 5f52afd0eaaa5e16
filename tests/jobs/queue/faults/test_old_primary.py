"""A primary that was replaced and does not know it, so that it breaks no connection."""

import asyncio
from pathlib import Path

import pytest
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from jobs.queue.connection import follow_primary, open_redis
from jobs.testing import redis_servers
from jobs.testing.waiting import outcome, wait_until


@pytest.mark.slow
async def test_it_is_left_without_a_word_from_it(tmp_path: Path) -> None:
    with redis_servers.sentinel(tmp_path / "one") as old, redis_servers.sentinel(tmp_path / "two") as new:
        client = open_redis(old.url)
        await client.set("written", "to the old one")
        following = asyncio.create_task(follow_primary(client))
        listening = asyncio.create_task(client.xread({"tasks": "$"}, block=1000))
        _watch_another(old.url, new.url)
        assert await outcome(listening) == []  # by a connection that was in use all the time
        await wait_until(lambda: _is_empty(client))
        following.cancel()
        await client.aclose()


def _watch_another(url: str, another: str) -> None:
    """Let the Sentinel of `url` name the primary of the other, as after a failover unknown to the old one."""
    (watcher, other) = (Redis(port=_port(one)) for one in (url, another))
    _, primary = other.sentinel_get_master_addr_by_name("images")
    watcher.sentinel_remove("images")
    watcher.sentinel_monitor("images", "127.0.0.1", primary, 1)
    watcher.sentinel_set("images", "auth-pass", "pw")


def _port(url: str) -> int:
    return int(url.rpartition("/")[0].rpartition(":")[2])


async def _is_empty(client: AsyncRedis) -> bool:
    return await client.dbsize() == 0


async def test_without_sentinel_there_is_nothing_to_follow(redis_url: str) -> None:
    client = open_redis(redis_url)
    await outcome(follow_primary(client))
    await client.aclose()
