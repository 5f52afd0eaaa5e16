"""A job's events as a browser would read them."""

import asyncio
from collections.abc import Callable

import httpx
import pytest

from jobs.settings import ApiSettings
from jobs.testing.waiting import outcome, wait_until
from service import job_stream
from tests.service.calls import is_problem, start
from tests.service.event_stream import Event, all_events, collect, read_events
from tests.service.running_api import running_api
from tests.service.stand_in_worker import StandInWorker, held, paused


async def test_a_job_is_told_from_the_queue_to_its_end(api: httpx.AsyncClient, worker: StandInWorker) -> None:
    await paused(worker)
    location = await start(api, 3)
    events: list[Event] = []
    reading = asyncio.create_task(collect(read_events(api, location), events))
    await wait_until(lambda: [event.name for event in events] == ["queued"])
    worker.paused = False
    await outcome(reading)
    images = [event for event in events if event.name == "image"]
    assert sorted(event.data["index"] for event in images) == [0, 1, 2]
    assert events[-1].name == "completed"
    assert [image["url"] for image in events[-1].data["images"]] == [event.data["url"] for event in images]
    assert (await api.get(images[0].data["url"])).status_code == 200


async def test_who_comes_late_is_told_everything(api: httpx.AsyncClient, worker: StandInWorker) -> None:
    location = await start(api, 2)
    assert (await all_events(api, location))[-1].name == "completed"
    names = [event.name for event in await all_events(api, location)]
    assert names == ["image", "image", "completed"]


async def test_who_comes_back_is_told_only_what_is_new(api: httpx.AsyncClient, worker: StandInWorker) -> None:
    location = await start(api, 3)
    first = await all_events(api, location)
    for position, event in enumerate(first[:-1]):
        again = await all_events(api, location, event.id)
        told = {earlier.data["index"] for earlier in first[: position + 1] if earlier.name == "image"}
        assert {event.data["index"] for event in again if event.name == "image"} == {0, 1, 2} - told
        assert again[-1].name == "completed"


async def test_who_comes_back_after_the_last_event_is_told_to_stop(
    api: httpx.AsyncClient, worker: StandInWorker
) -> None:
    location = await start(api, 2)
    last = (await all_events(api, location))[-1]
    answer = await api.get(f"{location}/events", headers={"Last-Event-ID": last.id})
    assert (answer.status_code, answer.content) == (204, b"")
    for job_id, status in (("0" * 32, 404), ("not-an-id", 422)):
        answer = await api.get(f"/jobs/{job_id}/events", headers={"Last-Event-ID": last.id})
        assert answer.status_code == status


async def test_a_cancellation_ends_the_stream(api: httpx.AsyncClient, worker: StandInWorker) -> None:
    worker.busy = True
    location = await start(api, 2)
    await held(worker, 2)
    reading = asyncio.create_task(all_events(api, location))
    await api.delete(location)
    events = await outcome(reading)
    assert (events[-1].name, len(events[-1].data["failures"])) == ("cancelled", 2)


async def test_another_copy_of_the_api_tells_at_once(
    api: httpx.AsyncClient,
    worker: StandInWorker,
    redis_url: str,
    free_port: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(job_stream, "POLL_S", 3600.0)  # nobody looks by the clock
    await paused(worker)
    location = await start(api)
    async with running_api(ApiSettings(redis_url=redis_url, port=free_port())) as other:
        events: list[Event] = []
        reading = asyncio.create_task(collect(read_events(other, location), events))
        await wait_until(lambda: bool(events))
        await api.delete(location)
        await outcome(reading)
    assert events[-1].name == "cancelled"


async def test_streams_of_unknown_jobs_and_strange_ids_are_refused(
    api: httpx.AsyncClient, worker: StandInWorker
) -> None:
    assert is_problem(await api.get(f"/jobs/{'0' * 32}/events"), 404, "job-not-found")
    location = await start(api)
    assert is_problem(await api.get(f"{location}/events", headers={"Last-Event-ID": "x"}), 422, "invalid-request")
