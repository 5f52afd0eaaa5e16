"""A Redis that answers and takes no writes is told from one that is away."""

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from redis.asyncio import Redis

from jobs.queue.connection import open_redis
from jobs.settings import ApiSettings
from jobs.testing import redis_servers
from jobs.testing.waiting import wait_until
from tests.service.calls import ASYNC, is_problem
from tests.service.running_api import running_api
from tests.service.stand_in_worker import StandInWorker

CAT = {"prompt": "a cat"}


async def test_a_redis_whose_disk_is_full_is_told_from_one_that_is_away(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    port = free_port()
    data = tmp_path / "data"
    config = "appendonly no\nstop-writes-on-bgsave-error yes\nsave 3600 1\ndbfilename nowhere.rdb"
    with redis_servers.server(data, config, port=port):
        redis = open_redis(f"redis://127.0.0.1:{port}/0")
        worker = StandInWorker(redis, patient=True)
        running = asyncio.create_task(worker.run())
        async with running_api(ApiSettings(redis_url=f"redis://127.0.0.1:{port}/0", port=free_port())) as api:
            await wait_until(lambda: _is_ready(api))
            (data / "nowhere.rdb").mkdir()  # what is to be written cannot replace it
            await redis.bgsave()
            await wait_until(lambda: _cannot_write(redis))
            assert is_problem(await api.post("/generate", json=CAT), 503, "store-unwritable")
            assert is_problem(await api.get("/readyz"), 503, "store-unwritable")
            metrics = (await api.get("/metrics")).text
            assert ("fourstep_redis_up 1.0" in metrics, "fourstep_redis_writable 0.0" in metrics) == (True, True)
            (data / "nowhere.rdb").rmdir()
            await redis.bgsave()
            await wait_until(lambda: _is_ready(api))
            assert (await api.post("/generate", json=CAT)).status_code == 200
        worker.stopped = True
        await running
        await redis.aclose()


@pytest.mark.parametrize("there", [0, 1])
async def test_a_redis_without_the_replicas_that_it_needs_is_told(
    redis: Redis,
    redis_url: str,
    api: httpx.AsyncClient,
    worker: StandInWorker,
    tmp_path: Path,
    free_port: Callable[[], int],
    there: int,
) -> None:
    worker.patient = True
    await wait_until(lambda: _is_ready(api))
    primary, port = urlsplit(redis_url), free_port()
    with ExitStack() as servers:
        for _ in range(there):
            follow = f"replicaof {primary.hostname} {primary.port}"
            servers.enter_context(redis_servers.server(tmp_path / "replica", follow, port=port))
        await redis.config_set("min-replicas-to-write", there + 1)
        await wait_until(lambda: _has_good_replicas(redis, there))
        try:
            await _nothing_can_be_written(api)
        finally:
            await redis.config_set("min-replicas-to-write", 0)
        await wait_until(lambda: _is_ready(api))
        assert (await api.post("/generate", json=CAT)).status_code == 200


async def _has_good_replicas(redis: Redis, count: int) -> bool:
    return (await redis.info("replication"))["min_slaves_good_slaves"] == count


async def _nothing_can_be_written(api: httpx.AsyncClient) -> None:
    refused = [await api.post("/generate", json=CAT), await api.get("/readyz")]
    refused += [await api.post("/generate", json=CAT, headers=ASYNC)]
    for answer in refused:
        assert is_problem(answer, 503, "store-unwritable")
        assert int(answer.headers["retry-after"]) > 0
        assert "replica" in answer.json()["detail"]
    metrics = (await api.get("/metrics")).text
    assert ("fourstep_redis_up 1.0" in metrics, "fourstep_redis_writable 0.0" in metrics) == (True, True)


async def _is_ready(api: httpx.AsyncClient) -> bool:
    return (await api.get("/readyz")).status_code == 200


async def _cannot_write(redis: Redis) -> bool:
    return (await redis.info("persistence"))["rdb_last_bgsave_status"] != "ok"
