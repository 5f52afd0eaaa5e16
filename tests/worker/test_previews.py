"""Previews: of watched jobs only, at every step but the last, and at no cost to anybody else."""

import asyncio
import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from PIL import Image
from redis.asyncio import Redis

from jobs.models import Preview, PreviewSubscription
from jobs.testing.waiting import wait_until
from tests.task_queue import TaskQueue
from tests.worker.running_worker import RunningWorker, job, running, settled
from tests.worker.tasks import image_task, pictures, set_task
from worker import previews
from worker.engine.decoded import decode_previews
from worker.engine.engine import Engine
from worker.engine.outcomes import FinishedSet, PreviewImage
from worker.engine.row import Row
from worker.model_folder.loading import LoadedModel
from worker.pixels import to_uint8


@contextmanager
def _counted_decodes(model: LoadedModel) -> Iterator[list[torch.Size]]:
    shapes: list[torch.Size] = []
    decode = model.network.decode

    def counting(latents: torch.Tensor) -> torch.Tensor:
        shapes.append(latents.shape)
        return decode(latents)

    model.network.decode = counting  # type: ignore[method-assign]
    try:
        yield shapes
    finally:
        del model.network.decode


def test_without_a_listener_nothing_is_decoded_but_the_image(tiny_model: LoadedModel) -> None:
    engine = Engine(tiny_model, max_batch=4)
    shown: list[list[PreviewImage]] = []
    engine.show, engine.watched = shown.append, {"somebody else's": {"channel"}}
    with _counted_decodes(tiny_model) as decoded:
        pictures(engine, [image_task(seed=1), image_task(seed=2)])
        assert len(decoded) == 1
    assert shown == []


def test_a_watched_job_is_shown_after_every_step_but_the_last(tiny_model: LoadedModel) -> None:
    engine = Engine(tiny_model, max_batch=4)
    shown: list[PreviewImage] = []
    engine.show, engine.watched = shown.extend, {"watched": {"channel"}}
    engine.add({"it": image_task(seed=3, index=5, job_id="watched"), "other": image_task(seed=4)})
    outcomes = []
    while engine.busy:
        before = len(shown)
        outcomes += engine.step()
        for sketch in shown[before:]:
            pred_x0 = engine._rows["it"].pred_x0
            assert pred_x0 is not None
            expected = to_uint8(tiny_model.network.decode(pred_x0[None]))[0].numpy()
            assert np.abs(sketch.pixels.astype(int) - expected).max() <= 1
    assert [(sketch.job_id, sketch.index, sketch.seed, sketch.step, sketch.steps) for sketch in shown] == [
        ("watched", 5, 3, step, 4) for step in (1, 2, 3)
    ]
    (alone,) = pictures(Engine(tiny_model, max_batch=4), [image_task(seed=3)])
    (made,) = [outcome for outcome in outcomes if outcome.key == "it"]
    assert np.abs(alone.pixels.astype(int) - made.pixels).max() <= 1


def test_a_set_is_shown_once_its_images_are_chosen(tiny_model: LoadedModel) -> None:
    engine = Engine(tiny_model, max_batch=4)
    shown: list[PreviewImage] = []
    engine.show, engine.watched = shown.extend, {"watched"}
    engine.add({"set": set_task(3, 9, job_id="watched")})
    outcomes = []
    while engine.busy:
        outcomes += engine.step()
    (made,) = outcomes
    assert isinstance(made, FinishedSet)
    seeds = [picture.seed for picture in made.pictures]
    assert sorted({(sketch.index, sketch.seed) for sketch in shown}) == list(enumerate(seeds))
    assert sorted((sketch.step, sketch.index) for sketch in shown) == [(s, i) for s in (1, 2, 3) for i in range(3)]


def test_previews_that_cannot_be_made_harm_no_image(tiny_model: LoadedModel) -> None:
    engine = Engine(tiny_model, max_batch=4)

    def broken(shown: list[PreviewImage]) -> None:
        raise RuntimeError("out of memory, say")

    engine.show, engine.watched = broken, {"job"}
    assert len(pictures(engine, [image_task(seed=1)])) == 1


def test_large_images_are_shown_small() -> None:
    shapes = []

    def decode(latents: torch.Tensor) -> torch.Tensor:
        shapes.append(latents.shape)
        return torch.zeros(len(latents), 3, *(8 * side for side in latents.shape[2:]))

    rows = [Row(str(seed), image_task(seed=seed, height=1024, width=768), step=1) for seed in range(3)]
    for row in rows:
        row.pred_x0 = torch.zeros(16, 128, 96)
    made = decode_previews(rows, 4, decode, most=2)
    assert shapes == [(2, 16, 32, 24)]
    assert [sketch.pixels.shape for sketch in made] == [(256, 192, 3)] * 2
    assert [row.shown_step for row in rows] == [1, 1, 0]


@pytest.mark.slow
async def test_wishes_bring_previews_and_end(
    redis: Redis, tiny_model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(previews, "SUBSCRIPTION_S", 3600.0)
    subscription = PreviewSubscription(job_id="job", channel="fourstep:previews:me")
    heard: list[Preview] = []

    async def listen() -> None:
        async with redis.pubsub(ignore_subscribe_messages=True) as pubsub:
            await pubsub.psubscribe("fourstep:previews:*")
            async for message in pubsub.listen():
                heard.append(Preview.model_validate_json(message["data"]))

    listening = asyncio.create_task(listen())
    await wait_until(redis.pubsub_numpat)
    async with running(redis, tiny_model) as worker:
        await worker.queue.admit(job(2, "unwatched"), 100, 600)
        await settled(worker.queue, "unwatched")
        await _wished(worker, subscription)
        await worker.queue.admit(job(2), 100, 600)
        await wait_until(lambda: len(heard) >= 6)
        assert {preview.job_id for preview in heard} == {"job"}
        assert [(preview.index, preview.step) for preview in heard] == [(i, s) for s in (1, 2, 3) for i in (0, 1)]
        await settled(worker.queue, "job")
        monkeypatch.setattr(previews, "SUBSCRIPTION_S", 0.01)
        await worker.queue.subscribe_to_previews(subscription)
        await wait_until(lambda: not worker.engine.watched)
    listening.cancel()
    picture = Image.open(io.BytesIO(base64.b64decode(heard[0].b64)))
    assert (picture.format, picture.size) == ("JPEG", (64, 64))


async def _wished(worker: RunningWorker, subscription: PreviewSubscription) -> None:
    """Repeat `subscription`, as whoever looks does, until the worker heeds it."""

    async def heeded() -> bool:
        await worker.queue.subscribe_to_previews(subscription)
        return bool(worker.engine.watched)

    await wait_until(heeded)


async def test_previews_that_cannot_be_published_do_not_fill_the_memory(redis: Redis) -> None:
    publisher = previews.Previews(TaskQueue(redis, "tiny-student"), lambda jobs: None)
    for _ in range(3 * previews.MOST_WAITING):
        publisher.show([])
    assert publisher._waiting.qsize() == previews.MOST_WAITING
