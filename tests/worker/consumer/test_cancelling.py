"""Cancelled jobs leave the worker, whether it hears of it or not."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from jobs.testing.samples import sample_result
from jobs.testing.waiting import wait_until
from tests.worker.running_worker import LEASE_S, hears_cancellations, job, running, settled
from worker.model_folder.loading import LoadedModel


@pytest.mark.slow
async def test_an_image_that_another_worker_made_is_no_cancelled_one(redis: Redis, tiny_model: LoadedModel) -> None:
    async with running(redis, tiny_model, max_batch=1, lease_s=LEASE_S, gated=True) as worker:
        await worker.queue.admit(job(2), 600, 600)
        await wait_until(lambda: len(worker.consumer._held) == 2)
        for claim in list(worker.consumer._held.values()):
            result = sample_result(claim.task, b"x")
            made_by = result.determinism.model_copy(update={"model_sha": worker.card.sha256})
            await worker.queue.commit(claim, result.model_copy(update={"determinism": made_by}), b"x", 600)
        await wait_until(lambda: "withdraw" in worker.device.asked)
        worker.gate.open()
        await wait_until(lambda: worker.images("duplicate") == 2)
        assert worker.images("cancelled") == 0


@pytest.mark.slow
async def test_a_cancelled_job_leaves_the_engine_within_a_step(redis: Redis, tiny_model: LoadedModel) -> None:
    async with running(redis, tiny_model, max_batch=2, gated=True) as worker:
        await hears_cancellations(redis, worker)
        await wait_until(lambda: worker.consumer._alone)
        await worker.queue.admit(job(50), 600, 600)
        await worker.gate.take_until_made(2)
        made = len(worker.gate.made)
        await wait_until(lambda: worker.images("ok") == made)
        await wait_until(lambda: worker.consumer._room == 0)  # what it claims next would be the lease's to notice
        await worker.queue.cancel("job", "no longer wanted")
        await wait_until(lambda: "withdraw" in worker.device.asked)
        steps = worker.gate.taken
        await worker.gate.take()
        await wait_until(lambda: worker.images("cancelled") > 0)
        assert not worker.engine.busy
        assert worker.gate.taken == steps + 1
        state = await worker.queue.job("job")
        worker.gate.open()
        await worker.queue.admit(job(2, "next"), 100, 600)
        assert (await settled(worker.queue, "next")).status == "completed"
    assert state is not None
    assert (state.status, len(state.results)) == ("cancelled", made)


@pytest.mark.slow
async def test_a_cancellation_that_went_unheard_is_noticed_with_the_lease(
    redis: Redis, tiny_model: LoadedModel
) -> None:
    async def silence() -> AsyncIterator[str]:
        await asyncio.Event().wait()
        yield ""

    async with running(redis, tiny_model, max_batch=1, lease_s=LEASE_S, gated=True) as worker:
        await hears_cancellations(redis, worker)
        await worker.queue.admit(job(50), 600, 600)
        await wait_until(lambda: worker.engine.busy)
        worker.queue.cancelled_jobs = silence  # type: ignore[method-assign]
        for client in await redis.client_list(_type="pubsub"):
            await redis.client_kill(client["addr"])
        await worker.queue.cancel("job", "no longer wanted")
        await wait_until(lambda: "withdraw" in worker.device.asked)
        worker.gate.open()
        await wait_until(lambda: worker.images("cancelled") > 0)
        await wait_until(lambda: not worker.engine.busy)
