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
from jobs.queue.pictures.sources import Source
from jobs.testing.samples import MODEL, sample_card
from jobs.testing.waiting import SAFETY_NET_S, outcome, wait_until
from service.inputs.picture_files import PictureLimits
from service.inputs.source_pictures import PictureInput, SourcePictures
from tests.service.calls import is_problem
from tests.service.pictures.files import b64, picture
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
    calls = [("a", b"a1"), ("a", b"a2"), ("a", b"a3"), ("b", b"b1")]
    reading = [
        asyncio.create_task(pictures.source_of(PictureInput(file), sample_card(), (64, 64), caller))
        for caller, file in calls
    ]
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
    asked, source_of = [], SourcePictures.source_of

    async def noting(own: SourcePictures, given: PictureInput, *arguments: Any) -> Source:
        asked.append(given)
        return await source_of(own, given, *arguments)

    monkeypatch.setattr(SourcePictures, "source_of", noting)
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
