"""The ends of jobs, read when all is over."""

import asyncio
import json
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256

import httpx
from redis import Redis

from jobs.queue.keys import ModelKeys
from tests.chaos.history import End, History

SETTLE_S = 240.0


async def ends_of(urls: list[str], history: History) -> dict[str, End | None]:
    """Return the end of every acknowledged job; those that have none within SETTLE_S seconds are left out."""
    ends: dict[str, End | None] = {}
    jobs = iter(history.jobs)

    async def look(http: httpx.AsyncClient, url: str) -> None:
        for job_id in jobs:
            with suppress(TimeoutError):
                async with asyncio.timeout(SETTLE_S):
                    ends[job_id] = await _settled(http, f"{url}/jobs/{job_id}")

    async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
        await asyncio.gather(*(look(http, url) for url in urls * 4))
    return ends


async def _settled(http: httpx.AsyncClient, job_url: str) -> End | None:
    while True:
        with suppress(httpx.HTTPError):
            answer = await http.get(job_url)
            if answer.status_code == 404:
                return None
            if answer.status_code == 200 and answer.json()["status"] not in ("queued", "running"):
                return await _end(http, answer.json())
        await asyncio.sleep(0.2)


async def _end(http: httpx.AsyncClient, job: dict) -> End:
    images = {}
    for image in job["images"]:
        answer = await http.get(image["url"])
        if answer.status_code == 503:  # Redis is away for a moment: all is asked for again
            answer.raise_for_status()
        if sha256(answer.content).hexdigest() == image["sha256"]:
            images[image["index"]] = image["sha256"]
    failures = {
        failure["index"]: "transient" if failure.get("transient") else failure["reason"] for failure in job["failures"]
    }
    return End(images, failures)


def with_models(client: Redis, model: str, job: str, end: End | None) -> End | None:
    """The end with the models that made its images, which the API names for the first one alone."""
    if end is None:
        return None
    stored = client.hgetall(ModelKeys(model).job(job))
    results = [
        json.loads(value.partition(b" ")[2])
        for name, value in stored.items()
        if name.startswith(b"image:") and value.startswith(b"result ")
    ]
    return replace(end, models={result["index"]: result["determinism"]["model_sha"] for result in results})
