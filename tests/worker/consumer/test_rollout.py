"""Workers of two models under one name: no job has pictures of both, and none is lost."""

from dataclasses import replace

import pytest
from redis.asyncio import Redis

from jobs.testing.samples import sample_result, sample_tasks
from jobs.testing.waiting import wait_until
from tests.task_queue import TaskQueue
from tests.worker.running_worker import LEASE_S, job, running, settled
from worker.model_folder.loading import LoadedModel

NEW = "cd" * 32


def renewed(model: LoadedModel) -> LoadedModel:
    """The model with other weights, as far as its hash says."""
    return replace(model, sha256=NEW)


@pytest.mark.slow
async def test_each_job_is_made_by_workers_of_its_model(redis: Redis, tiny_model: LoadedModel) -> None:
    old, new = running(redis, tiny_model), running(redis, renewed(tiny_model), worker_id="w2")
    async with old as worker, new:
        await wait_until(lambda: _workers(worker.queue, 2))
        pins = {f"job{number}": [tiny_model.sha256, NEW, ""][number % 3] for number in range(12)}
        for job_id, model_sha in pins.items():
            await worker.queue.admit(job(4, job_id), 500, 600, model_sha=model_sha)
        for job_id, model_sha in pins.items():
            state = await settled(worker.queue, job_id)
            (made_by,) = {result.determinism.model_sha for result in state.results}
            assert (state.status, made_by) == ("completed", model_sha or made_by)


async def _workers(queue: TaskQueue, count: int) -> bool:
    return len(await queue.workers()) == count


@pytest.mark.slow
async def test_what_a_model_that_is_gone_has_not_begun_is_made_by_its_successor(
    redis: Redis, tiny_model: LoadedModel
) -> None:
    queue = TaskQueue(redis, "tiny-student")
    await queue.admit(job(3), 100, 600, model_sha="ab" * 32)
    async with running(redis, tiny_model):
        state = await settled(queue, "job")
    assert state.status == "completed"
    assert {result.determinism.model_sha for result in state.results} == {tiny_model.sha256}


@pytest.mark.slow
async def test_a_job_with_images_of_a_model_that_is_gone_fails_and_says_that_it_may_be_repeated(
    redis: Redis, tiny_model: LoadedModel
) -> None:
    queue = TaskQueue(redis, "tiny-student")
    async with running(redis, renewed(tiny_model), max_batch=1, gated=True) as worker:
        await queue.admit(job(8), 100, 600, model_sha=NEW)
        await worker.gate.take_until_made(1)
        worker.stop.set()
        await wait_until(lambda: "withdraw_unstarted" in worker.device.asked)
    async with running(redis, tiny_model):
        state = await settled(queue, "job")
    assert {result.determinism.model_sha for result in state.results} == {NEW}
    assert 0 < len(state.results) < 8
    assert all(failure.transient for failure in state.failures)
    assert state.status == "failed"


@pytest.mark.slow
async def test_a_suspect_stays_one_when_it_is_left_to_its_model(redis: Redis, tiny_model: LoadedModel) -> None:
    queue = TaskQueue(redis, "tiny-student")
    await queue.admit(job(2), 100, 600, model_sha=NEW)
    await queue.claim("victim", 2, 0)
    async with running(redis, tiny_model, lease_s=LEASE_S) as old:
        await queue.announce("of the new model", old.card.model_copy(update={"sha256": NEW}), 600)
        await wait_until(lambda: old.taken_over)
        taken = await queue.take_over("of the new model", 2)
        assert all(claim.suspect for claim in taken)
        assert (await queue.job("job")).results == []  # type: ignore[union-attr]
        await queue.cancel("job", "seen enough")


async def test_results_of_two_models_never_meet_in_a_job(redis: Redis) -> None:
    queue = TaskQueue(redis, "tiny-student")
    (first, second) = sample_tasks(2)
    await queue.admit([first, second], 10, 600)
    one, two = await queue.claim("w1", 2, 0)
    assert await queue.commit(one, sample_result(one.task, b"one"), b"one", 600)
    other = sample_result(two.task, b"two")
    other = other.model_copy(update={"determinism": other.determinism.model_copy(update={"model_sha": NEW})})
    refused = await queue.commit_all(two, [other], [b"two"], 600)
    assert (refused.images, refused.other_model) == (0, True)
    assert await queue.depth() == (0, 1)
    assert await queue.commit(two, sample_result(two.task, b"two"), b"two", 600)
