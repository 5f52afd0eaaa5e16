"""`select`: one task, the chosen seeds in the answer, and a diversity score with every set of images."""

import asyncio

import httpx
import openai
import pytest

from jobs.diversity import METRIC
from jobs.testing.waiting import wait_until
from tests.service.calls import generate
from tests.service.event_stream import all_events
from tests.service.stand_in_worker import StandInWorker

DIVERSE = {"diverse": True, "candidates": 10}


async def test_a_set_is_one_task_and_its_seeds_reproduce_alone(api: httpx.AsyncClient, worker: StandInWorker) -> None:
    body = await generate(api, seed=7, num_images=4, select=DIVERSE)
    (task,) = worker.seen
    assert task.select is not None
    assert (task.seed, task.select.images, task.select.candidates) == (7, 4, 10)
    assert [(image["index"], image["seed"]) for image in body["images"]] == [(0, 7), (1, 9), (2, 11), (3, 13)]
    alone = await generate(api, seeds=[7, 9, 11, 13])
    assert [image["sha256"] for image in alone["images"]] == [image["sha256"] for image in body["images"]]


@pytest.mark.parametrize(("images", "candidates"), [(1, 4), (3, 12), (16, 64), (40, 64)])
async def test_without_a_number_there_are_four_candidates_an_image(
    api: httpx.AsyncClient, worker: StandInWorker, images: int, candidates: int
) -> None:
    assert len((await generate(api, num_images=images, select={"diverse": True}))["images"]) == images
    assert worker.seen[0].select is not None
    assert worker.seen[0].select.candidates == candidates


async def test_seeds_and_select_exclude_each_other(api: httpx.AsyncClient, worker: StandInWorker) -> None:
    answer = await api.post("/generate", json={"prompt": "a cat", "seeds": [1, 2], "select": DIVERSE})
    assert answer.status_code == 422
    assert "either seeds or select" in answer.text


async def test_several_images_come_with_their_diversity(api: httpx.AsyncClient, worker: StandInWorker) -> None:
    body = await generate(api, num_images=3)
    assert body["diversity"]["metric"] == METRIC
    assert body["diversity"]["score"] > 0
    assert (await generate(api, seeds=[5, 5]))["diversity"]["score"] == 0
    assert "diversity" not in await generate(api)
    job = (await api.get(f"/jobs/{body['id']}")).json()
    assert job["diversity"] == body["diversity"]
    assert (await all_events(api, f"/jobs/{body['id']}"))[-1].data["diversity"] == body["diversity"]
    async with openai.AsyncOpenAI(base_url=f"{api.base_url}/v1", api_key="any", max_retries=0) as client:
        answer = await client.images.generate(prompt="a cat", n=3)
    assert answer.model_extra is not None
    assert answer.model_extra["diversity"]["metric"] == METRIC


async def test_a_waiting_set_is_told_and_cancelled_as_all_its_images(
    api: httpx.AsyncClient, worker: StandInWorker
) -> None:
    worker.paused = True
    await wait_until(lambda: worker.resting)
    body = {"prompt": "a cat", "num_images": 4, "select": DIVERSE}
    location = (await api.post("/generate", json=body, headers={"Prefer": "respond-async"})).headers["location"]
    assert (await api.get(location)).json()["total"] == 4
    assert 'fourstep_queue_images{model="emoji-test"} 4.0' in (await api.get("/metrics")).text
    cancelled = (await api.delete(location)).json()
    assert (cancelled["status"], len(cancelled["failures"])) == ("cancelled", 4)
    assert await worker.queue.depth() == (0, 0)


async def test_sets_count_as_their_images_where_the_queue_is_full(
    api: httpx.AsyncClient, worker: StandInWorker
) -> None:
    worker.paused = True
    await wait_until(lambda: worker.resting)
    body = {"prompt": "a cat", "num_images": 30, "select": {"diverse": True}}
    headers = {"Prefer": "respond-async"}
    answers = [await api.post("/generate", json=body, headers=headers) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [202, 202, 429]


async def test_a_set_is_carried_out_once_under_its_key(api: httpx.AsyncClient, worker: StandInWorker) -> None:
    body = {"prompt": "a cat", "num_images": 4, "select": DIVERSE}
    headers = {"Idempotency-Key": "once"}
    answers = [await api.post("/generate", json=body, headers=headers) for _ in range(2)]
    assert answers[0].json() == answers[1].json()
    assert len(worker.seen) == 1
    other = await api.post("/generate", json=body | {"select": {"diverse": True}}, headers=headers)
    assert other.status_code == 422


async def test_a_set_whose_client_hangs_up_is_given_up(api: httpx.AsyncClient, worker: StandInWorker) -> None:
    worker.busy = True
    call = asyncio.create_task(api.post("/generate", json={"prompt": "a cat", "num_images": 4, "select": DIVERSE}))
    await wait_until(lambda: len(worker.seen) == 1)
    call.cancel()

    async def empty() -> bool:
        return await worker.queue.depth() == (0, 0)

    await wait_until(empty)
