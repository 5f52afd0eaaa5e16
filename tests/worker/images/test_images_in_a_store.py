"""Images of a worker that keeps them outside Redis: a result is one only when its image is stored."""

import asyncio
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from jobs.image_store import ImageStore
from jobs.testing.s3_server import S3Server, s3_server
from jobs.testing.waiting import wait_until
from tests.worker.running_worker import running
from tests.worker.tasks import image_task
from worker import redis_retry
from worker.model_folder.loading import LoadedModel


@pytest.fixture
def s3(free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    with s3_server(free_port()) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server


async def pictures_in(redis: Redis) -> list[bytes]:
    return await redis.keys("*:image:*")


@pytest.mark.slow
async def test_a_bucket_s_outage_delays_results_and_loses_none(
    redis: Redis, tiny_model: LoadedModel, s3: S3Server, caplog: pytest.LogCaptureFixture
) -> None:
    store = ImageStore("s3://pictures/made")
    async with running(redis, tiny_model, store=store) as worker:
        (before,) = tasks = [image_task(seed=1)]
        await worker.queue.admit(tasks, 10, 600)
        await wait_until(lambda: worker.images("ok") == 1)
        await asyncio.to_thread(s3.stop)
        during = [image_task(seed=seed, index=seed, job_id="during") for seed in range(3)]
        await worker.queue.admit(during, 10, 600)
        await wait_until(lambda: "the image store does not do it" in caplog.text)
        state = await worker.queue.job("during")
        assert state is not None
        assert state.results == state.failures == []
        assert await worker.queue.depth() == (0, 3)
        await asyncio.to_thread(s3.start)
        await wait_until(lambda: worker.images("ok") == 4)
        names = await asyncio.to_thread(s3.names)
        for job in (before.job_id, "during"):
            state = await worker.queue.job(job)
            assert state is not None
            for result in state.results:
                assert f"made/{result.sha256[:2]}/{result.sha256}.png" in names
                data = await store.get(result.sha256, "png")
                assert data is not None
                assert hashlib.sha256(data).hexdigest() == result.sha256
    assert await pictures_in(redis) == []


async def test_a_folder_that_has_no_room_is_waited_for(
    redis: Redis, tiny_model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_retry, "FIRST_PAUSE_S", 0.01)
    folder = tmp_path / "pictures"
    store = ImageStore(str(folder))
    folder.rmdir()
    folder.write_text("in the way")
    async with running(redis, tiny_model, store=store) as worker:
        await worker.queue.admit([image_task(seed=1)], 10, 600)
        await wait_until(lambda: worker.count("fourstep_stage_duration_seconds_count", stage="encode_image") == 1)
        assert await worker.queue.depth() == (0, 1)
        folder.unlink()
        await wait_until(lambda: worker.images("ok") == 1)
    assert len(list(folder.rglob("*.png"))) == 1
    assert await pictures_in(redis) == []
