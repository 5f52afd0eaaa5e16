"""Streamed images through OpenAI's own client; the previews are told by hand, tests/bundled has real ones."""

import asyncio
import base64
import io
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest
from PIL import Image

from jobs.models import Preview, PreviewSubscription
from jobs.testing.waiting import outcome, wait_until
from service.openai.stream import partial_steps
from tests.service.calls import start
from tests.service.event_stream import collect, read_events
from tests.service.stand_in_worker import FAILING_PROMPT, StandInWorker, paused


@pytest.fixture
async def client(api: httpx.AsyncClient, worker: StandInWorker) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{api.base_url}/v1", api_key="any", max_retries=0) as client:
        yield client


@pytest.fixture
async def subscriptions(worker: StandInWorker) -> AsyncIterator[list[PreviewSubscription]]:
    """The wishes for previews that workers hear."""
    heard: list[PreviewSubscription] = []

    async def listen() -> None:
        async for subscription in worker.queue.preview_subscriptions():
            heard.append(subscription)

    listening = asyncio.create_task(listen())
    channel = worker.queue._keys.preview_subscriptions
    await wait_until(lambda: _subscribed(worker, channel))
    yield heard
    listening.cancel()


async def _subscribed(worker: StandInWorker, channel: str) -> bool:
    return bool((await worker.queue._redis.pubsub_numsub(channel))[0][1])


def _preview(subscription: PreviewSubscription, index: int, step: int) -> Preview:
    common = {"seed": 7 + index, "steps": 4, "width": 32, "height": 32, "format": "jpeg"}
    b64 = base64.b64encode(f"{index}/{step}".encode()).decode()
    return Preview.model_validate({**common, "job_id": subscription.job_id, "index": index, "step": step, "b64": b64})


async def events(client: openai.AsyncOpenAI, **body: Any) -> list[Any]:
    stream = await client.images.generate(**{"prompt": "a cat", "stream": True, **body})
    return [event async for event in stream]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("partial_images", "steps", "expected"),
    [(0, 4, []), (1, 4, [2]), (2, 4, [1, 3]), (3, 4, [1, 2, 3]), (3, 2, [1]), (2, 1, []), (3, 30, [8, 15, 22])],
)
def test_partial_images_are_spread_over_the_steps(partial_images: int, steps: int, expected: list[int]) -> None:
    assert partial_steps(partial_images, steps) == expected


async def test_each_finished_image_is_an_event(client: openai.AsyncOpenAI) -> None:
    told = await events(client, n=2, extra_body={"seed": 7})
    assert [event.type for event in told] == ["image_generation.completed"] * 2
    assert sorted((event.index, event.seed) for event in told) == [(0, 7), (1, 8)]
    for event in told:
        picture = Image.open(io.BytesIO(base64.b64decode(event.b64_json)))
        assert (picture.format, picture.size, event.size) == ("PNG", (64, 64), "64x64")
        assert (event.output_format, event.usage.total_tokens) == ("png", 0)


async def test_partial_images_come_in_between(
    client: openai.AsyncOpenAI, worker: StandInWorker, subscriptions: list[PreviewSubscription], api: httpx.AsyncClient
) -> None:
    await paused(worker)
    streaming = asyncio.create_task(events(client, n=2, partial_images=2, extra_body={"seed": 7}))
    await wait_until(lambda: subscriptions)
    for step in (1, 2, 3):
        for index in (0, 1):
            await worker.queue.publish_preview(_preview(subscriptions[0], index, step), subscriptions[0].channel)
    worker.paused = False
    told = await streaming
    partial = [event for event in told if event.type == "image_generation.partial_image"]
    assert [(event.index, event.partial_image_index) for event in partial] == [(0, 0), (1, 0), (0, 1), (1, 1)]
    assert [base64.b64decode(event.b64_json) for event in partial] == [b"0/1", b"1/1", b"0/3", b"1/3"]
    assert [event.type for event in told[4:]] == ["image_generation.completed"] * 2
    assert "fourstep_time_to_first_preview_seconds_count 1.0" in (await api.get("/metrics")).text


async def test_who_wants_no_parts_wishes_none(
    client: openai.AsyncOpenAI, subscriptions: list[PreviewSubscription]
) -> None:
    await events(client)
    await client.images.generate(prompt="a cat")
    assert subscriptions == []


async def test_what_is_refused_is_refused_before_the_stream(client: openai.AsyncOpenAI) -> None:
    for wrong in ({"n": 65}, {"size": "100x100"}, {"extra_body": {"steps": 30}}):
        with pytest.raises(openai.UnprocessableEntityError):
            await events(client, **wrong)
    with pytest.raises(openai.UnprocessableEntityError, match="partial_images needs stream"):
        await client.images.generate(prompt="a cat", partial_images=2)


async def test_a_failure_ends_the_stream(client: openai.AsyncOpenAI, api: httpx.AsyncClient) -> None:
    with pytest.raises(openai.APIError, match="asked to"):
        await events(client, prompt=FAILING_PROMPT)
    assert 'endpoint="/v1/images/generations",outcome="error"' in (await api.get("/metrics")).text


async def test_a_stream_whose_client_is_gone_is_given_up(client: openai.AsyncOpenAI, worker: StandInWorker) -> None:
    worker.busy = True
    stream = await client.images.generate(prompt="a cat", n=2, stream=True)
    await wait_until(lambda: len(worker.seen) == 2)
    await stream.close()

    async def empty() -> bool:
        return await worker.queue.depth() == (0, 0)

    await wait_until(empty)


async def test_a_stream_sent_again_is_carried_out_once(client: openai.AsyncOpenAI, worker: StandInWorker) -> None:
    once = {"Idempotency-Key": "7"}
    first, second = [await events(client, extra_headers=once) for _ in range(2)]
    assert [event.b64_json for event in first] == [event.b64_json for event in second]
    assert len(worker.made) == 1


async def test_a_jobs_events_hold_its_previews(
    api: httpx.AsyncClient, worker: StandInWorker, subscriptions: list[PreviewSubscription]
) -> None:
    await paused(worker)
    location = await start(api, 2)
    told: list[Any] = []
    reading = asyncio.create_task(collect(read_events(api, location), told))
    await wait_until(lambda: subscriptions and told)
    preview = _preview(subscriptions[0], 1, 2)
    await worker.queue.publish_preview(preview, subscriptions[0].channel)
    await wait_until(lambda: len(told) == 2)
    worker.paused = False
    await outcome(reading)
    assert (told[1].name, told[1].data) == ("preview", preview.model_dump(mode="json"))
    assert told[-1].name == "completed"
    assert "fourstep_time_to_first_preview_seconds_count 1.0" in (await api.get("/metrics")).text
