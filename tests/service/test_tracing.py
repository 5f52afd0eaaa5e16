"""A call's trace goes with its tasks into the queue."""

import asyncio
import os
import sys

import httpx
import pytest

from jobs.settings import ApiSettings
from jobs.testing.waiting import SAFETY_NET_S, wait_until
from tests.service.stand_in_worker import StandInWorker
from tests.span_collector import Collector

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.slow
async def test_a_call_and_its_tasks_belong_to_the_callers_trace(
    settings: ApiSettings, worker: StandInWorker, collector: Collector
) -> None:
    variables = {"REDIS_URL": settings.redis_url, "PORT": str(settings.port), "TRACES_URL": collector.url}
    environment = os.environ | {f"FOURSTEP_{name}": value or "" for name, value in variables.items()}
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "fourstep", "api", env=environment)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{settings.port}", timeout=SAFETY_NET_S) as client:
            await wait_until(lambda: _answers(client))
            headers = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
            answer = await client.post("/generate", json={"prompt": "a cat", "num_images": 2}, headers=headers)
            assert answer.status_code == 200
    finally:
        process.terminate()
        await process.wait()
    (call,) = [span for span in collector.spans if span.parent_span_id.hex() == CALLER]
    assert call.trace_id.hex() == TRACE
    assert {(task.traceparent or "").split("-")[1] for task in worker.made} == {TRACE}
    inside = {span.span_id.hex() for span in collector.spans}
    assert {(task.traceparent or "").split("-")[2] for task in worker.made} <= inside
    assert "a cat" not in str(collector.spans)


async def _answers(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/readyz")).is_success
    except httpx.TransportError:
        return False
