import re
import subprocess
import sys
from collections.abc import Callable

import httpx
import pytest
from redis.asyncio import Redis

from jobs.settings import ApiSettings
from jobs.testing.samples import MODEL, sample_card, sample_tasks
from jobs.testing.waiting import wait_until
from service.app import create_app
from service.routes.pages import STATIC_DIR
from tests.service.running_api import running_api
from tests.service.stand_in_worker import StandInWorker


async def test_ready_only_while_a_warm_worker_is_seen(
    api: httpx.AsyncClient, redis: Redis, worker: StandInWorker
) -> None:
    answer = await api.get("/readyz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ready", "models": [MODEL]})


async def test_not_ready_without_a_worker(api: httpx.AsyncClient) -> None:
    answer = await api.get("/readyz")
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:fourstep:problem:no-worker")
    assert (await api.get("/healthz")).json() == {"status": "ok"}


async def test_models_are_listed_with_effective_settings(api: httpx.AsyncClient, worker: StandInWorker) -> None:
    (model,) = (await api.get("/models")).json()["models"]
    assert model["name"] == MODEL
    assert model["settings"] == sample_card().settings.model_dump()
    assert model["sizes"] == [[64, 64], [64, 96]]
    assert [lease["worker_id"] for lease in model["workers"]] == [f"stand-in-{MODEL}"]


async def test_metrics_count_requests_and_read_the_queue(api: httpx.AsyncClient, worker: StandInWorker) -> None:
    worker.busy = True
    await worker.queue.admit(sample_tasks(3), 64, 60)

    async def claimed() -> bool:
        return await worker.queue.depth() == (0, 3)

    await wait_until(claimed)
    await api.post("/generate", json={"prompt": ""})
    await api.get("/nowhere")
    lines = (await api.get("/metrics")).text.splitlines()
    assert f'fourstep_inflight_images{{model="{MODEL}"}} 3.0' in lines
    assert f'fourstep_queue_images{{model="{MODEL}"}} 0.0' in lines
    assert f'fourstep_workers{{model="{MODEL}"}} 1.0' in lines
    assert 'fourstep_requests_total{endpoint="/generate",outcome="invalid"} 1.0' in lines
    assert 'fourstep_requests_total{endpoint="unmatched",outcome="invalid"} 1.0' in lines


async def test_image_addresses_share_one_endpoint_label(api: httpx.AsyncClient, worker: StandInWorker) -> None:
    for digit in "01":
        await api.get(f"/images/{digit * 64}.png")
    text = (await api.get("/metrics")).text
    assert 'fourstep_requests_total{endpoint="/images/{sha256}.{image_format}",outcome="invalid"} 2.0' in text


@pytest.mark.parametrize("path", ["/", "/status", "/docs"])
async def test_pages_load_nothing_from_elsewhere(api: httpx.AsyncClient, path: str) -> None:
    page = await api.get(path)
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "unsafe" not in page.headers["content-security-policy"]
    assert "style=" not in page.text
    assert "onclick" not in page.text
    assert not re.search("https?://", page.text)
    parts = re.findall('(?:src|href)="(/static/[^"]+)"', page.text)
    assert len(parts) >= 2
    for answer in (page, *[await api.get(part) for part in parts]):
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "no-cache"
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_static_files_name_no_other_host() -> None:
    for file in STATIC_DIR.iterdir():
        assert set(re.findall("https?://[^\"']*", file.read_text())) <= {"http://www.w3.org/2000/svg"}, file.name


async def test_openapi_describes_generate(api: httpx.AsyncClient) -> None:
    operation = (await api.get("/openapi.json")).json()["paths"]["/generate"]["post"]
    assert set(operation["responses"]) == {
        *("200", "202", "400", "406", "409", "413", "415", "422", "429", "500", "503", "504")
    }
    assert "application/problem+json" in operation["responses"]["422"]["content"]


def test_the_api_needs_a_redis_address(free_port: Callable[[], int]) -> None:
    with pytest.raises(ValueError, match="FOURSTEP_REDIS_URL"):
        create_app(ApiSettings(port=free_port()))


@pytest.mark.slow
@pytest.mark.parametrize("module", ["service.app", "service.server", "jobs.queue.job_client", "fourstep"])
def test_no_torch_is_imported(module: str) -> None:
    never = {"torch", "diffusers"} if module == "fourstep" else {"torch", "diffusers", "worker"}
    code = f"import sys, {module}; print(sorted({never} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(("policy", "warned"), [("allkeys-lru", True), ("volatile-ttl", True), ("noeviction", False)])
async def test_a_redis_that_would_drop_jobs_is_named_at_the_start(
    settings: ApiSettings, redis: Redis, caplog: pytest.LogCaptureFixture, policy: str, warned: bool
) -> None:
    await redis.config_set("maxmemory-policy", policy)
    try:
        async with running_api(settings):
            pass
    finally:
        await redis.config_set("maxmemory-policy", "noeviction")
    logs = [vars(record) for record in caplog.records]
    assert [line["policy"] for line in logs if "drops jobs" in line["msg"]] == ([policy] if warned else [])


@pytest.mark.usefixtures("worker")
async def test_head_is_get_without_the_body(api: httpx.AsyncClient) -> None:
    url = (await api.post("/generate", json={"prompt": "a cat", "response": "url"})).json()["images"][0]["url"]
    for path in ("/", "/status", "/docs", "/healthz", "/readyz", url):
        got, head = await api.get(path), await api.head(path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == str(len(got.content))
        assert head.headers["content-type"] == got.headers["content-type"]


async def test_each_answer_has_an_id_of_its_own(api: httpx.AsyncClient) -> None:
    ids = {(await api.get(path)).headers["x-request-id"] for path in ("/healthz", "/healthz", "/nowhere")}
    assert len(ids) == 3


async def test_operations_have_readable_names(api: httpx.AsyncClient) -> None:
    paths = (await api.get("/openapi.json")).json()["paths"].values()
    names = [operation["operationId"] for path in paths for operation in path.values()]
    assert {"generate", "get_job", "cancel_job", "get_image", "create_images"} <= set(names)
    assert len(set(names)) == len(names)
