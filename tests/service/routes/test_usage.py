"""Each API key is told what it has had, and the operator what all have had."""

import hashlib
from collections.abc import Callable

import httpx
import pytest

from jobs.settings import ApiSettings
from jobs.testing.samples import MODEL
from tests.service.running_api import running_api
from tests.service.stand_in_worker import FAILING_PROMPT, StandInWorker

pytestmark = pytest.mark.usefixtures("worker")


async def usage(api: httpx.AsyncClient, key: str = "none") -> dict:
    return (await api.get("/usage", headers={"Authorization": f"Bearer {key}"})).json()


def of_the_model(images: int) -> list[dict]:
    return [{"model": MODEL, "images": images, "work_seconds": round(0.02 * images, 3)}]


async def test_each_key_has_its_own_and_only_images_count(
    redis_url: str, free_port: Callable[[], int], worker: StandInWorker
) -> None:
    settings = ApiSettings.model_validate({"redis_url": redis_url, "port": free_port(), "api_keys": "one, two"})
    async with running_api(settings) as api:
        for key, images, prompt in (("one", 3, "a cat"), ("one", 1, FAILING_PROMPT), ("two", 1, "a cat")):
            headers = {"Authorization": f"Bearer {key}"}
            await api.post("/generate", json={"prompt": prompt, "num_images": images}, headers=headers)
        name = hashlib.sha256(b"one").hexdigest()[:8]
        assert await usage(api, "one") == {"key": name, "models": of_the_model(3)}
        assert (await usage(api, "two"))["models"] == of_the_model(1)
        metrics = (await api.get("/metrics", headers={"Authorization": "Bearer two"})).text
    assert f'fourstep_usage_images{{key="{name}",model="{MODEL}"}} 3.0' in metrics
    assert f'fourstep_usage_seconds{{key="{name}",model="{MODEL}"}} 0.06' in metrics


async def test_without_keys_it_is_everybody_s(api: httpx.AsyncClient) -> None:
    await api.post("/generate", json={"prompt": "a cat", "num_images": 2})
    assert await usage(api) == {"key": "", "models": of_the_model(2)}
