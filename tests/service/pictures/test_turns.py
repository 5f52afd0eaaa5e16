"""The decoder of pictures: callers take turns, and a call waits for it no longer than it may."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from jobs.queue.claims import SourceFiles
from jobs.queue.keys import ModelKeys
from jobs.settings import ApiSettings
from jobs.testing.samples import MODEL
from jobs.testing.waiting import SAFETY_NET_S, outcome, wait_until
from service.inputs.picture_files import PictureLimits
from service.inputs.source_pictures import PictureInput, SourcePictures
from tests.service.calls import ASYNC, is_problem
from tests.service.pictures.files import b64, picture
from tests.service.running_api import running_api
from tests.service.stand_in_worker import StandInWorker


class Decoder:
    """A decoder that waits until it may: `read` are the pictures that it was given."""

    def __init__(self) -> None:
        self.read: list[bytes | str] = []
        self.may = threading.Event()

    def __call__(self, own: object, given: PictureInput, *arguments: object) -> SourceFiles:
        self.read.append(given.image)
        assert self.may.wait(SAFETY_NET_S)
        return SourceFiles(picture())


@pytest.fixture
def decoder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Decoder]:
    decoder = Decoder()
    monkeypatch.setattr(SourcePictures, "_read", lambda *arguments: decoder(*arguments))
    yield decoder
    decoder.may.set()


async def test_callers_take_turns(decoder: Decoder) -> None:
    pictures = SourcePictures(None, PictureLimits(1000, 1000))  # type: ignore[arg-type]

    async def read(caller: str, file: bytes) -> None:
        async with pictures.turn(caller):
            await pictures.source_of(PictureInput(file), (64, 64))

    calls = [("a", b"a1"), ("a", b"a2"), ("a", b"a3"), ("b", b"b1")]
    reading = [asyncio.create_task(read(caller, file)) for caller, file in calls]
    await wait_until(lambda: decoder.read)
    decoder.may.set()
    await asyncio.gather(*reading)
    assert decoder.read == [b"a1", b"b1", b"a2", b"a3"]
    assert not pictures._turns


async def test_a_call_waits_for_the_decoder_no_longer_than_its_timeout(
    api: httpx.AsyncClient, worker: StandInWorker, decoder: Decoder
) -> None:
    call = asyncio.create_task(api.post("/generate", json={"prompt": "a", "image": b64(picture()), "timeout": 0.1}))
    answer = await outcome(call)
    assert is_problem(answer, 504, "deadline-expired")
    form = {"data": {"prompt": "a cat"}, "files": {"image": ("a.png", picture())}}
    decoder.may.set()
    assert (await api.post("/v1/images/edits", **form)).status_code == 200
    assert len(worker.seen) == 1


async def test_the_picture_of_a_client_that_hangs_up_is_decoded_for_nobody(
    api: httpx.AsyncClient, worker: StandInWorker, redis: Redis, decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, turn = [], SourcePictures.turn

    def noting(own: SourcePictures, caller: str) -> asyncio.Lock:
        asked.append(caller)
        return turn(own, caller)

    monkeypatch.setattr(SourcePictures, "turn", noting)
    first, second = (
        asyncio.create_task(api.post("/generate", json={"prompt": "a cat", "image": name})) for name in ("AAAA", "AAAB")
    )
    await wait_until(lambda: decoder.read and len(asked) == 2)
    first.cancel()
    second.cancel()

    async def both_are_gone() -> bool:
        return '{endpoint="/generate",outcome="cancelled"} 2.0' in (await api.get("/metrics")).text

    await wait_until(both_are_gone)
    decoder.may.set()
    assert (await api.post("/generate", json={"prompt": "a cat", "image": "AAAC"})).status_code == 200
    assert decoder.read in (["AAAA", "AAAC"], ["AAAB", "AAAC"])
    assert len(worker.seen) == 1
    assert await redis.keys(ModelKeys(MODEL).input("*")) == []


async def test_a_call_beyond_a_limit_is_refused_before_its_picture_is_decoded(
    settings: ApiSettings, worker: StandInWorker, decoder: Decoder
) -> None:
    decoder.may.set()
    once, body = {"Idempotency-Key": "once"}, {"prompt": "a cat", "image": "AAAA"}
    form: dict[str, Any] = {"data": {"prompt": "a cat", "stream": "true"}, "files": {"image": ("a.png", picture())}}
    async with running_api(settings.model_copy(update={"rate_limit": 1})) as api:
        first = await api.post("/generate", json=body, headers=once)
        again = await api.post("/generate", json=body, headers=once)
        assert (again.status_code, again.json()["id"]) == (200, first.json()["id"])
        other = await api.post("/generate", json=body | {"prompt": "a dog"}, headers=once)
        assert is_problem(other, 422, "idempotency-key-reused")
        for answer in (await api.post("/generate", json=body), await api.post("/v1/images/edits", **form)):
            assert is_problem(answer, 429, "rate-limited")
    async with running_api(settings.model_copy(update={"evaluation_rate_limit": 3})) as api:
        assert is_problem(await api.post("/generate", json=body | {"strength": 1.0}), 422, "invalid-request")
        assert (await api.post("/generate", json=body | {"image": "AAAB"})).status_code == 200
    worker.paused = True
    await wait_until(lambda: worker.resting)
    async with running_api(settings.model_copy(update={"max_queued_images": 1})) as api:
        assert (await api.post("/generate", json={"prompt": "a cat"}, headers=ASYNC)).status_code == 202
        assert is_problem(await api.post("/generate", json=body), 429, "queue-full")
    assert decoder.read == ["AAAA", "AAAB"]
