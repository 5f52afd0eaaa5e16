"""An API whose clock is wrong."""

import time
from types import SimpleNamespace

import httpx
import pytest
from redis.asyncio import Redis

from jobs.testing.redis_servers import seconds
from tests.service.stand_in_worker import StandInWorker


@pytest.mark.parametrize("ahead_s", [-600.0, 600.0])
async def test_calls_are_answered(
    api: httpx.AsyncClient, worker: StandInWorker, redis: Redis, monkeypatch: pytest.MonkeyPatch, ahead_s: float
) -> None:
    wrong = SimpleNamespace(time=lambda: time.time() + ahead_s, monotonic=time.monotonic)
    for module in ("schemas.generate_request", "waiting", "generation"):
        monkeypatch.setattr(f"service.{module}.time", wrong, raising=False)
    before = await seconds(redis)
    answer = await api.post("/generate", json={"prompt": "a cat", "timeout": 300})
    assert answer.status_code == 200, answer.text
    assert int(before) <= answer.json()["created"] <= await seconds(redis)
