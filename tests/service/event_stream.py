"""A job's events, read as a browser reads them."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx


@dataclass
class Event:
    name: str
    id: str
    data: dict


async def read_events(api: httpx.AsyncClient, location: str, last_id: str | None = None) -> AsyncIterator[Event]:
    headers = {"Last-Event-ID": last_id} if last_id else {}
    async with api.stream("GET", f"{location}/events", headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        fields: dict[str, str] = {}
        async for line in answer.aiter_lines():
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif "event" in fields:
                yield Event(fields["event"], fields.get("id", ""), json.loads(fields["data"]))
                fields = {}


async def all_events(api: httpx.AsyncClient, location: str, last_id: str | None = None) -> list[Event]:
    return [event async for event in read_events(api, location, last_id)]


async def collect(stream: AsyncIterator[Event], events: list[Event]) -> None:
    async for event in stream:
        events.append(event)
