"""Leases, take-overs and suspects."""

from typing import Any

import pytest
from redis.asyncio import Redis

from jobs.queue.dead_letters import DeadLetters
from jobs.testing.waiting import wait_until
from tests.task_queue import TaskQueue
from tests.worker.consumer.leases import OLD_S, make_old, none_is_old
from tests.worker.running_worker import LEASE_S, job, running, settled
from worker.consumer import MAX_ATTEMPTS
from worker.engine.row import Row
from worker.model_folder.loading import LoadedModel


@pytest.mark.slow
async def test_tasks_of_a_silent_worker_are_taken_over(redis: Redis, tiny_model: LoadedModel) -> None:
    queue = TaskQueue(redis, "tiny-student")
    await queue.admit(job(3), 100, 600)
    assert len(await queue.claim("silent", 3, 0)) == 3
    async with running(redis, tiny_model, lease_s=LEASE_S) as worker:
        state = await settled(queue, "job")
        assert {claim.task.index for claim in worker.taken_over} == {0, 1, 2}
        assert worker.count("fourstep_redeliveries_total") == len(worker.redelivered)
    assert state.status == "completed"


@pytest.mark.slow
async def test_a_task_that_nobody_survives_is_given_up(redis: Redis, tiny_model: LoadedModel) -> None:
    queue = TaskQueue(redis, "tiny-student")
    await queue.admit(job(1), 100, 600)
    (claim,) = await queue.claim("victim", 1, 0)
    for _ in range(MAX_ATTEMPTS):
        await queue.begin(claim)
    async with running(redis, tiny_model, lease_s=LEASE_S) as worker:
        state = await settled(queue, "job")
        await wait_until(lambda: worker.count("fourstep_dead_letters_total") == 1)
    (letter,) = await DeadLetters(redis, "tiny-student").read()
    assert letter.task.job_id == "job"
    assert state.status == "failed"
    assert "given up after 3 attempts" in state.failures[0].detail


@pytest.mark.slow
async def test_however_often_its_holders_die_an_image_is_made(redis: Redis, tiny_model: LoadedModel) -> None:
    queue = TaskQueue(redis, "tiny-student")
    await queue.admit(job(6), 100, 600)
    await queue.claim("victim-0", 6, 0)
    for number in range(1, 9):
        taken = await queue.take_over(f"victim-{number}", 6)
        await queue.begin(min(taken, key=lambda claim: claim.attempts))
    async with running(redis, tiny_model, lease_s=LEASE_S) as worker:
        state = await settled(queue, "job")
        assert worker.count("fourstep_dead_letters_total") == 0
    assert (state.status, len(state.results)) == ("completed", 6)


@pytest.mark.slow
async def test_a_suspect_runs_alone_and_new_images_after_it(redis: Redis, tiny_model: LoadedModel) -> None:
    queue = TaskQueue(redis, "tiny-student")
    await queue.admit(job(3, "old"), 100, 600)
    await queue.claim("victim", 3, 0)
    async with running(redis, tiny_model, lease_s=LEASE_S, gated=True) as worker:
        await wait_until(lambda: worker.engine.busy)
        await queue.admit(job(3, "new"), 100, 600)
        batches: list[set[str]] = []
        denoise = worker.engine.runner.denoise

        def recorded(rows: list[Row], *meanwhile: Any) -> float:
            batches.append({row.task.job_id for row in rows})
            assert len(rows) == 1 or "old" not in batches[-1]
            return denoise(rows, *meanwhile)

        worker.engine.runner.denoise = recorded  # type: ignore[method-assign]
        worker.gate.open()
        states = [await settled(queue, job_id) for job_id in ("old", "new")]
    assert [state.status for state in states] == ["completed", "completed"]
    assert {"old"} in batches


async def test_leases_of_waiting_and_running_images_are_renewed(redis: Redis, tiny_model: LoadedModel) -> None:
    async with running(redis, tiny_model, max_batch=1, lease_s=LEASE_S, gated=True) as worker:
        await worker.queue.admit(job(400), 500, 600)
        await wait_until(lambda: worker.engine.busy)
        await worker.gate.take()
        for _ in range(2):
            assert await make_old(redis, worker.queue) > 1
            await wait_until(lambda: none_is_old(redis, worker.queue))
            assert await worker.queue.reclaim("thief", OLD_S, 10) == []
        assert worker.taken_over == []
