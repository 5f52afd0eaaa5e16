import asyncio
import json
from collections.abc import AsyncIterator, Callable

import httpx
import pytest
from redis.asyncio import Redis

from jobs.queue.claims import Claim
from jobs.settings import ApiSettings
from jobs.testing.samples import MODEL, sample_card
from jobs.testing.waiting import wait_until
from tests.service.calls import is_problem
from tests.service.running_api import running_api
from tests.service.stand_in_worker import FAILING_PROMPT, StandInWorker
from tests.task_queue import TaskQueue

INVALID_FIELDS = [
    ({"prompt": ""}, "prompt", 1),
    ({"prompt": "x" * 2001}, "prompt", 2000),
    ({"prompt": 3}, "prompt", None),
    ({"prompt": "\ud800"}, "prompt", None),
    ({}, "prompt", None),
    ({"num_images": 0}, "num_images", 1),
    ({"num_images": 65}, "num_images", 64),
    ({"num_images": "4"}, "num_images", None),
    ({"num_images": True}, "num_images", None),
    ({"num_images": 1.5}, "num_images", None),
    ({"seed": -1}, "seed", 0),
    ({"seed": 2**63}, "seed", 2**63 - 1),
    ({"seed": 2**63 - 2, "num_images": 3}, "seed", 2**63 - 3),
    ({"seeds": []}, "seeds", 1),
    ({"seeds": list(range(65))}, "seeds", 64),
    ({"seeds": [1, "2"]}, "seeds.1", None),
    ({"width": 100}, "width", ["64x64", "96x64"]),
    ({"height": 96}, "height", ["64x64", "96x64"]),
    ({"format": "gif"}, "format", "'png', 'jpeg' or 'webp'"),
    ({"quality": 101}, "quality", 100),
    ({"response": "file"}, "response", "'b64' or 'url'"),
    ({"mode": "exact"}, "mode", "'fast' or 'strict'"),
    ({"timeout": 0}, "timeout", 0),
    ({"timeout": 601}, "timeout", 600),
    ({"model": "nobody"}, "model", ["emoji-test"]),
    ({"select": {"diverse": False}}, "select.diverse", "True"),
    ({"select": {"candidates": 8}}, "select.diverse", None),
    ({"select": {"diverse": True, "candidates": 65}}, "select.candidates", 64),
    ({"select": {"diverse": True, "candidates": 3}, "num_images": 4}, "select.candidates", 4),
    ({"select": {"diverse": True, "count": 4}}, "select.count", None),
    ({"select": {"diverse": True, "candidates": 9}, "seed": 2**63 - 8}, "seed", 2**63 - 9),
    ({"num_image": 2}, "num_image", None),
    (dict.fromkeys(map(str, range(7000))), "body", 64),
    ({"select": {"diverse": True} | dict.fromkeys(map(str, range(7000)))}, "select", 64),
]


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize(("change", "field", "limit"), INVALID_FIELDS)
async def test_each_bad_field_is_named_with_its_limit(
    api: httpx.AsyncClient, change: dict, field: str, limit: object
) -> None:
    body = {"prompt": "a cat", **change} if change else {}
    headers = {"Content-Type": "application/json"}
    answer = await api.post("/generate", content=json.dumps(body), headers=headers)
    assert is_problem(answer, 422, "invalid-request")
    errors = {error["field"]: error for error in answer.json()["errors"]}
    assert field in errors, answer.text
    assert errors[field].get("limit") == limit
    assert errors[field]["message"]


@pytest.mark.usefixtures("worker")
async def test_all_bad_fields_are_named_at_once(api: httpx.AsyncClient) -> None:
    answer = await api.post("/generate", json={"prompt": "", "num_images": 99, "colour": "red"})
    assert {error["field"] for error in answer.json()["errors"]} == {"prompt", "num_images", "colour"}


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("other", ["seed", "num_images"])
async def test_seeds_excludes_seed_and_num_images(api: httpx.AsyncClient, other: str) -> None:
    answer = await api.post("/generate", json={"prompt": "a cat", "seeds": [1], other: 1})
    assert is_problem(answer, 422, "invalid-request")
    assert f"seeds or {other}" in answer.json()["detail"]


@pytest.mark.parametrize("body", [b"{", b"", b'{"prompt": "a"', b'\xff{"prompt":"a"}', b"[" * 30000])
async def test_malformed_json_is_refused(api: httpx.AsyncClient, body: bytes) -> None:
    answer = await api.post("/generate", content=body, headers={"Content-Type": "application/json"})
    if body == b"":
        assert is_problem(answer, 422, "invalid-request")
    else:
        assert is_problem(answer, 400, "malformed-json")
    assert answer.json()["errors"][0]["field"] == "body"


async def test_json_sent_as_a_form_is_told_the_content_type(api: httpx.AsyncClient) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = await api.post("/generate", content=b'{"prompt":"a"}', headers=headers)
    assert is_problem(answer, 415, "unsupported-media-type")
    assert "application/json" in answer.json()["detail"]


async def _chunks() -> AsyncIterator[bytes]:
    for _ in range(20):
        yield b" " * 8192


@pytest.mark.parametrize("content", [b" " * 100_000, _chunks], ids=["with length", "chunked"])
async def test_an_oversized_body_is_refused(api: httpx.AsyncClient, content: bytes | Callable) -> None:
    body = content() if callable(content) else content
    # Where no picture belongs; tests/service/pictures has the other limit.
    answer = await api.post("/v1/images/generations", content=body, headers={"Content-Type": "application/json"})
    assert is_problem(answer, 413, "body-too-large")
    assert answer.json()["errors"][0]["limit"] == 64 * 1024


@pytest.mark.parametrize(
    "body",
    [
        b'{"prompt": [' + b"[]," * 70_000 + b"[]]}",
        b"{" + b",".join(b'"%x":1' % i for i in range(30_000)) + b"}",
        b'{"prompt": "' + b"\\u0061" * 70_000 + b'"}',
    ],
    ids=["lists", "fields", "escapes"],
)
async def test_a_document_of_more_values_than_a_body_without_pictures_can_have(
    api: httpx.AsyncClient, body: bytes
) -> None:
    answer = await api.post("/generate", content=body, headers={"Content-Type": "application/json"})
    assert is_problem(answer, 413, "body-too-large")
    error = {"field": "body", "message": "at most 65536 bytes beside its pictures", "limit": 65536}
    assert answer.json()["errors"] == [error]


@pytest.mark.usefixtures("worker")
async def test_an_answer_repeats_little_of_a_request(api: httpx.AsyncClient) -> None:
    for wrong, errors in (({"k" * 200_000: 1}, 1), ({f"field{i}": 1 for i in range(60)}, 20)):
        answer = await api.post("/generate", json={"prompt": "a cat", **wrong})
        assert is_problem(answer, 422, "invalid-request")
        assert len(answer.json()["errors"]) == errors
        assert len(answer.content) < 10_000


@pytest.mark.usefixtures("worker")
async def test_slashes_of_base64_may_be_escaped(api: httpx.AsyncClient) -> None:
    body = b'{"prompt": "a cat", "image": "' + b"\\/" * 80_000 + b'"}'
    answer = await api.post("/generate", content=body, headers={"Content-Type": "application/json"})
    assert is_problem(answer, 422, "invalid-request")
    assert answer.json()["errors"][0]["field"] == "image"


@pytest.mark.usefixtures("worker")
async def test_the_longest_prompt_fits_the_body_limit(api: httpx.AsyncClient) -> None:
    answer = await api.post("/generate", json={"prompt": "\U0001f600" * 2000, "seeds": [2**63 - 1] * 64})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "name"),
    [("GET", "/nowhere", 404, "not-found"), ("GET", "/generate", 405, "method-not-allowed")],
)
async def test_wrong_addresses_are_problems(
    api: httpx.AsyncClient, method: str, path: str, status: int, name: str
) -> None:
    assert is_problem(await api.request(method, path), status, name)


async def test_no_model_yet(api: httpx.AsyncClient) -> None:
    assert is_problem(await api.post("/generate", json={"prompt": "a cat"}), 503, "no-model")


async def test_settings_may_lower_the_limits(
    redis_url: str, free_port: Callable[[], int], worker: StandInWorker
) -> None:
    settings = ApiSettings(redis_url=redis_url, port=free_port(), max_images=2, max_prompt_chars=5)
    async with running_api(settings) as api:
        answer = await api.post("/generate", json={"prompt": "a cat face", "num_images": 3})
    assert is_problem(answer, 422, "invalid-request")
    limits = {error["field"]: error["limit"] for error in answer.json()["errors"]}
    assert limits == {"num_images": 2, "prompt": 5}


async def test_a_full_queue_sheds_with_retry_after(
    redis_url: str, free_port: Callable[[], int], worker: StandInWorker
) -> None:
    worker.paused = True
    await wait_until(lambda: worker.resting)
    settings = ApiSettings(redis_url=redis_url, port=free_port(), max_queued_images=4, max_images=4)
    async with running_api(settings) as api:
        body = {"prompt": "a cat", "num_images": 4}
        calls = [asyncio.create_task(api.post("/generate", json=body)) for _ in range(12)]
        await wait_until(lambda: sum(call.done() for call in calls) == 11)
        shed = [call.result() for call in calls if call.done()]
        worker.paused = False
        answers = await asyncio.gather(*calls)
    assert all(is_problem(answer, 429, "queue-full") and int(answer.headers["retry-after"]) > 0 for answer in shed)
    assert [answer.status_code for answer in answers if answer not in shed] == [200]


async def test_a_call_past_its_deadline_times_out(api: httpx.AsyncClient, worker: StandInWorker) -> None:
    worker.busy = True
    answer = await api.post("/generate", json={"prompt": "a cat", "timeout": 0.3})
    assert is_problem(answer, 504, "deadline-expired")


@pytest.mark.usefixtures("worker")
async def test_an_image_that_fails_fails_the_call(api: httpx.AsyncClient) -> None:
    answer = await api.post("/generate", json={"prompt": FAILING_PROMPT, "num_images": 2})
    assert is_problem(answer, 500, "generation-error")
    assert "asked to" in answer.json()["detail"]


async def test_a_redis_without_memory_sheds(api: httpx.AsyncClient, redis: Redis) -> None:
    await TaskQueue(redis, MODEL).announce("w1", sample_card(), ttl_s=600)
    await redis.config_set("maxmemory", 1)
    try:
        answer = await api.post("/generate", json={"prompt": "a cat"})
    finally:
        await redis.config_set("maxmemory", 0)
    assert is_problem(answer, 429, "store-full")
    assert "retry-after" in answer.headers


async def test_without_redis_the_api_starts_and_says_so(free_port: Callable[[], int]) -> None:
    settings = ApiSettings(redis_url=f"redis://127.0.0.1:{free_port()}/0", port=free_port())
    async with running_api(settings) as api:
        assert is_problem(await api.post("/generate", json={"prompt": "a cat"}), 503, "redis-unavailable")
        assert is_problem(await api.get("/readyz"), 503, "redis-unavailable")
        assert (await api.get("/healthz")).status_code == 200
        assert (await api.get("/metrics")).status_code == 200


async def test_a_lost_event_only_delays_the_answer(api: httpx.AsyncClient, worker: StandInWorker, redis: Redis) -> None:
    worker.busy = True
    call = asyncio.create_task(api.post("/generate", json={"prompt": "a cat"}))

    async def claimed() -> bool:
        return (await worker.queue.depth())[1] == 1

    await wait_until(claimed)
    for client in await redis.client_list(_type="pubsub"):
        await redis.client_kill(client["addr"])
    worker.busy = False
    taken: list[Claim] = []

    async def taken_over() -> list[Claim]:
        return taken.extend(await worker.queue.reclaim(worker._id, idle_s=0.001, count=1)) or taken

    await wait_until(taken_over)
    await worker._settle(taken[0])
    assert (await call).status_code == 200
