import asyncio
import base64
import hashlib
import io

import httpx
import pytest
from PIL import Image

from jobs.testing.samples import MODEL
from tests.service.calls import generate
from tests.service.stand_in_worker import StandInWorker

pytestmark = pytest.mark.usefixtures("worker")


def pixels(image: dict) -> bytes:
    return Image.open(io.BytesIO(base64.b64decode(image["b64"]))).tobytes()


async def test_one_call_answers_as_many_images_with_consecutive_seeds(api: httpx.AsyncClient) -> None:
    body = await generate(api, seed=7, num_images=4)
    assert [image["seed"] for image in body["images"]] == [7, 8, 9, 10]
    assert [image["index"] for image in body["images"]] == [0, 1, 2, 3]
    assert len({pixels(image) for image in body["images"]}) == 4
    assert body["model"] == MODEL
    assert set(body) == {"id", "model", "created", "images", "diversity", "timings", "determinism"}
    assert set(body["timings"]) == {"queue", "encode", "denoise", "decode", "encode_image", "total"}
    assert set(body["determinism"]) == {"mode", "bucket", "device", "dtype", "torch", "model_sha"}


async def test_the_bytes_are_those_the_hash_names(api: httpx.AsyncClient) -> None:
    (image,) = (await generate(api))["images"]
    assert hashlib.sha256(base64.b64decode(image["b64"])).hexdigest() == image["sha256"]
    assert (image["width"], image["height"], image["format"]) == (64, 64, "png")


async def test_a_list_of_seeds_makes_the_same_pictures_as_single_calls(api: httpx.AsyncClient) -> None:
    together = await generate(api, seeds=[11, 3, 11, 2**63 - 1])
    assert [image["seed"] for image in together["images"]] == [11, 3, 11, 2**63 - 1]
    alone = [(await generate(api, seed=seed))["images"][0] for seed in (11, 3, 11, 2**63 - 1)]
    assert [image["sha256"] for image in together["images"]] == [image["sha256"] for image in alone]


async def test_an_absent_seed_is_drawn_and_returned(api: httpx.AsyncClient) -> None:
    first, second = await generate(api), await generate(api)
    assert first["images"][0]["seed"] != second["images"][0]["seed"]
    again = await generate(api, seed=first["images"][0]["seed"])
    assert again["images"][0]["sha256"] == first["images"][0]["sha256"]


async def test_the_task_carries_what_was_asked(api: httpx.AsyncClient, worker: StandInWorker) -> None:
    await generate(api, format="webp", quality=55, mode="strict", width=96, timeout=500)
    (task,) = worker.made
    assert (task.width, task.height, task.format, task.quality, task.mode) == (96, 64, "webp", 55, "strict")
    assert task.deadline == pytest.approx(task.created + 500)


async def test_a_url_answers_the_bytes_forever(api: httpx.AsyncClient) -> None:
    (image,) = (await generate(api, response="url"))["images"]
    assert "b64" not in image
    answer = await api.get(image["url"])
    assert hashlib.sha256(answer.content).hexdigest() == image["sha256"]
    assert answer.headers["content-type"] == "image/png"
    assert "immutable" in answer.headers["cache-control"]
    unchanged = await api.get(image["url"], headers={"If-None-Match": answer.headers["etag"]})
    assert (unchanged.status_code, unchanged.content) == (304, b"")


@pytest.mark.parametrize("path", [f"/images/{'0' * 64}.png", f"/images/{'0' * 64}.gif", "/images/..%2Fsecret.png"])
async def test_unknown_images_are_problems(api: httpx.AsyncClient, path: str) -> None:
    answer = await api.get(path)
    assert answer.status_code in (404, 422)
    assert answer.headers["content-type"] == "application/problem+json"


async def test_many_calls_at_once_each_get_their_own_pictures(api: httpx.AsyncClient) -> None:
    bodies = await asyncio.gather(*(generate(api, prompt=f"cat {i}", seed=i, num_images=2) for i in range(20)))
    assert [body["images"][0]["seed"] for body in bodies] == list(range(20))
    assert len({image["sha256"] for body in bodies for image in body["images"]}) == 40


async def test_a_job_can_be_looked_up_afterwards(api: httpx.AsyncClient) -> None:
    made = await generate(api, num_images=2)
    job = (await api.get(f"/jobs/{made['id']}")).json()
    assert (job["status"], job["total"], job["failures"]) == ("completed", 2, [])
    assert [image["sha256"] for image in job["images"]] == [image["sha256"] for image in made["images"]]
    assert (await api.get(job["images"][0]["url"])).status_code == 200


async def test_an_unknown_job_is_not_found(api: httpx.AsyncClient) -> None:
    answer = await api.get(f"/jobs/{'0' * 32}")
    assert (answer.status_code, answer.json()["type"]) == (404, "urn:fourstep:problem:job-not-found")
