"""Images that are kept in a folder or a bucket, through every way out of the API."""

import base64
import hashlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from pydantic import ValidationError
from redis.asyncio import Redis

from jobs.image_store import ImageStore
from jobs.settings import ApiSettings
from jobs.testing.s3_server import S3Server, s3_server
from tests.service.calls import generate, is_problem
from tests.service.running_api import running_api
from tests.service.stand_in_worker import StandInWorker

BUCKET = "s3://pictures"


@pytest.fixture
def s3(free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    with s3_server(free_port()) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server


@asynccontextmanager
async def serving(settings: ApiSettings, worker: StandInWorker, **more: object) -> AsyncIterator[httpx.AsyncClient]:
    settings = settings.model_copy(update=more)
    async with running_api(settings) as api:
        worker.store = ImageStore(settings.image_store)
        yield api


@pytest.mark.parametrize("kind", ["folder", "bucket"])
async def test_every_form_of_an_answer_reads_the_store(
    settings: ApiSettings, worker: StandInWorker, redis: Redis, s3: S3Server, tmp_path: Path, kind: str
) -> None:
    async with serving(settings, worker, image_store=BUCKET if kind == "bucket" else str(tmp_path)) as api:
        (inline,) = (await generate(api, seed=1))["images"]
        data = base64.b64decode(inline["b64"])
        assert hashlib.sha256(data).hexdigest() == inline["sha256"]
        (linked,) = (await generate(api, seed=1, response="url"))["images"]
        by_address = await api.get(linked["url"])
        assert (by_address.content, by_address.headers["content-type"]) == (data, "image/png")
        body = {"prompt": "a smiling cat face", "seed": 1}
        raw = await api.post("/generate", json=body, headers={"Accept": "image/png"})
        assert raw.content == data
        (openai,) = (await api.post("/v1/images/generations", json=body)).json()["data"]
        assert base64.b64decode(openai["b64_json"]) == data
        streamed = await api.post("/v1/images/generations", json=body | {"stream": True})
        assert base64.b64encode(data).decode() in streamed.text
        assert is_problem(await api.get(f"/images/{'0' * 64}.png"), 404, "image-not-found")
    assert await redis.keys("*:image:*") == []


async def test_images_made_before_are_still_found(
    settings: ApiSettings, api: httpx.AsyncClient, worker: StandInWorker, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    (image,) = (await generate(api, response="url"))["images"]
    async with serving(settings, worker, image_store=str(tmp_path), port=free_port()) as later:
        path = httpx.URL(image["url"]).path
        assert (await later.get(path)).status_code == 200


async def test_addresses_may_lead_to_the_bucket_itself(
    settings: ApiSettings, worker: StandInWorker, s3: S3Server
) -> None:
    async with serving(settings, worker, image_store=BUCKET, image_redirect=True) as api:
        (image,) = (await generate(api, response="url"))["images"]
        answer = await api.get(image["url"])
        assert answer.status_code == 307
        assert answer.headers["location"].startswith(f"http://127.0.0.1:{s3.port}/pictures/")
        assert "X-Amz-Signature=" in answer.headers["location"]
        for method in ("GET", "HEAD"):
            followed = await api.request(method, image["url"], follow_redirects=True)
            assert (followed.status_code, followed.headers["content-type"]) == (200, "image/png")
        assert is_problem(await api.get(f"/images/{'0' * 64}.png"), 404, "image-not-found")


async def test_a_bucket_that_does_not_answer_is_told(
    settings: ApiSettings, worker: StandInWorker, s3: S3Server
) -> None:
    async with serving(settings, worker, image_store=BUCKET) as api:
        (image,) = (await generate(api, response="url"))["images"]
        s3.stop()
        assert is_problem(await api.get(image["url"]), 503, "image-store-unavailable")
        s3.start()
        assert (await api.get(image["url"])).status_code == 200


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"image_store": "ftp://pictures"}, "redis, a folder, or begin with"),
        ({"image_redirect": True}, "image_redirect needs"),
        ({"image_redirect": True, "image_store": "pictures"}, "image_redirect needs"),
    ],
)
def test_settings_that_cannot_work(wrong: dict[str, object], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        ApiSettings.model_validate(wrong)
