"""API keys, rate limits, and the pages that may call across origins."""

import asyncio
import io
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import openai
import pytest
from redis.asyncio import Redis
from rich.console import Console

from jobs.settings import ApiSettings
from jobs.testing.redis_servers import seconds
from service.client import GenerationFailedError, generate_files
from tests.service.calls import is_problem
from tests.service.running_api import running_api
from tests.service.stand_in_worker import StandInWorker

GOOD = {"Authorization": "Bearer first-key"}
OTHER = {"Authorization": "bearer second-key"}
CALL = {"prompt": "a cat", "num_images": 4}


@pytest.fixture
async def locked(
    redis_url: str, free_port: Callable[[], int], worker: StandInWorker
) -> AsyncIterator[httpx.AsyncClient]:
    settings = ApiSettings(
        redis_url=redis_url,
        port=free_port(),
        api_keys="first-key, second-key",  # type: ignore[arg-type]
        max_images=8,
        rate_limit=10,
        cors_origins="https://pages.example",  # type: ignore[arg-type]
    )
    async with running_api(settings) as client:
        yield client


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/generate"), ("GET", "/models"), ("GET", f"/jobs/{'0' * 32}"), ("GET", "/metrics"), ("GET", "/nowhere")],
)
async def test_a_key_is_asked_for(locked: httpx.AsyncClient, method: str, path: str) -> None:
    answer = await locked.request(method, path, content=b"{")
    assert is_problem(answer, 401, "no-api-key")
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("sent", ["Bearer first-ke", "Bearer first-key2", "Bearer", "Basic first-key", "first-key", ""])
async def test_a_wrong_key_is_refused(locked: httpx.AsyncClient, sent: str) -> None:
    answer = await locked.post("/generate", json=CALL, headers={"Authorization": sent})
    assert is_problem(answer, 403, "unknown-api-key")


async def test_under_v1_a_missing_and_a_wrong_key_are_openai_s_401(locked: httpx.AsyncClient) -> None:
    for headers, code in (({}, "no_api_key"), ({"Authorization": "Bearer x"}, "invalid_api_key")):
        answer = await locked.get("/v1/models", headers=headers)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert (answer.json()["error"]["type"], answer.json()["error"]["code"]) == ("authentication_error", code)
    async with openai.AsyncOpenAI(base_url=f"{locked.base_url}/v1", api_key="x", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError):
            await client.models.list()


@pytest.mark.parametrize("headers", [GOOD, OTHER])
async def test_each_key_opens(locked: httpx.AsyncClient, headers: dict[str, str]) -> None:
    answer = await locked.post("/generate", json=CALL | {"response": "url"}, headers=headers)
    assert answer.status_code == 200
    image = await locked.get(answer.json()["images"][0]["url"])
    assert image.status_code == 200


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/", "/status", "/static/playground.js", "/openapi.json"])
async def test_probes_and_pages_are_open(locked: httpx.AsyncClient, path: str) -> None:
    assert (await locked.get(path)).status_code == 200


async def test_refusals_are_counted_and_documented(locked: httpx.AsyncClient) -> None:
    await locked.get("/models")
    assert 'outcome="unauthorized"} 1.0' in (await locked.get("/metrics", headers=GOOD)).text
    openapi = (await locked.get("/openapi.json")).json()
    assert {"401", "403"} <= set(openapi["paths"]["/generate"]["post"]["responses"])
    assert openapi["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"


async def test_the_rate_is_counted_in_images_by_key(locked: httpx.AsyncClient, redis: Redis) -> None:
    eight = CALL | {"num_images": 8}
    began = await seconds(redis)
    answers = [await locked.post("/generate", json=eight, headers=GOOD) for _ in range(2)]
    passed = await seconds(redis) - began
    assert [answer.status_code for answer in answers] == [200, 429]
    refused = answers[1]
    assert is_problem(refused, 429, "rate-limited")
    assert refused.headers["ratelimit-policy"] == '"images";q=10;w=60'
    remaining, wait = map(int, re.fullmatch(r'"images";r=(\d+);t=(\d+)', refused.headers["ratelimit"]).groups())
    assert refused.headers["retry-after"] == str(wait)
    # Two are left and six more are needed, one every six seconds.
    assert 2 <= remaining <= 2 + passed / 6
    assert 36 - passed <= wait <= 36
    assert (await locked.post("/generate", json=CALL, headers=OTHER)).status_code == 200
    assert [key for key in await redis.keys("*") if b"first-key" in key] == []


async def test_keys_do_not_share_idempotency_keys(locked: httpx.AsyncClient) -> None:
    once = {"Idempotency-Key": "1"}
    mine, theirs = [await locked.post("/generate", json=CALL, headers=who | once) for who in (GOOD, OTHER)]
    assert (mine.status_code, theirs.status_code) == (200, 200)
    assert mine.json()["id"] != theirs.json()["id"]


async def test_the_command_line_client_sends_its_key(locked: httpx.AsyncClient, tmp_path: Path) -> None:
    request = {"prompt": "a cat", "seed": 7, "format": "png"}
    console = Console(file=io.StringIO())
    await asyncio.to_thread(generate_files, str(locked.base_url), request, tmp_path, console, "first-key")
    assert (tmp_path / "7.png").stat().st_size > 0
    with pytest.raises(GenerationFailedError, match="Bearer"):
        await asyncio.to_thread(generate_files, str(locked.base_url), request, tmp_path, console)


async def test_only_named_origins_may_call(locked: httpx.AsyncClient) -> None:
    ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,prefer"}
    allowed = await locked.options("/generate", headers=ask | {"Origin": "https://pages.example"})
    refused = await locked.options("/generate", headers=ask | {"Origin": "https://elsewhere.example"})
    assert (allowed.status_code, refused.status_code) == (200, 400)
    assert allowed.headers["access-control-allow-origin"] == "https://pages.example"
    without_key = await locked.get("/models", headers={"Origin": "https://pages.example"})
    assert without_key.headers["access-control-allow-origin"] == "https://pages.example"


async def test_without_the_setting_no_origin_is_allowed(api: httpx.AsyncClient) -> None:
    answer = await api.get("/models", headers={"Origin": "https://pages.example"})
    assert "access-control-allow-origin" not in answer.headers


async def test_scrapers_have_a_port_of_their_own_that_needs_no_key(
    redis_url: str, free_port: Callable[[], int]
) -> None:
    keys: dict[str, str] = {"api_keys": "a-key"}
    settings = ApiSettings.model_validate(
        keys | {"redis_url": redis_url, "port": free_port(), "api_metrics_port": free_port()}
    )
    async with running_api(settings) as api:
        scraped = f"http://127.0.0.1:{settings.api_metrics_port}"
        assert "fourstep_redis_up 1.0" in (await api.get(f"{scraped}/metrics")).text
        for path in ("/models", "/generate", "/healthz", "/images/x"):
            assert is_problem(await api.get(f"{scraped}{path}"), 404, "not-found")
        host = {"Host": f"127.0.0.1:{settings.api_metrics_port}"}
        assert is_problem(await api.get("/metrics", headers=host), 401, "no-api-key")
