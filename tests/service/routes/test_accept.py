"""One image as bytes, by the Accept header."""

import hashlib
import io

import httpx
import pytest
from PIL import Image

from service.accept import accepted_image
from tests.service.calls import is_problem
from tests.service.stand_in_worker import StandInWorker


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("*/*", None),
        ("", None),
        ("application/json", None),
        ("text/html, */*;q=0.8", None),
        ("image/*", "webp"),
        ("image/*, image/jpeg;q=0.5", "jpeg"),
        ("image/avif, image/*;q=0.9", "webp"),
        ("image/*;q=0.5, application/json", None),
        ("image/gif, */*", None),
        ("image/png", "png"),
        ("IMAGE/WebP", "webp"),
        ("image/png, */*", "png"),
        ("image/png;q=0.5, image/webp", "webp"),
        ("application/json, image/png;q=0.9", None),
        ("application/json;q=0.1, image/jpeg; q=0.9", "jpeg"),
        ("image/png;q=0", None),
        ("image/png;q=high", None),
        (";;q=,,=;", None),
    ],
)
def test_the_header_says_whether_bytes_are_wanted(accept: str, expected: str | None) -> None:
    assert accepted_image(accept, usual="webp") == expected


async def test_any_image_is_of_the_format_that_the_body_names(api: httpx.AsyncClient, worker: StandInWorker) -> None:
    for more, expected in (({}, "image/png"), ({"format": "webp"}, "image/webp")):
        answer = await api.post("/generate", json={"prompt": "a cat", **more}, headers={"Accept": "image/*"})
        assert (answer.status_code, answer.headers["content-type"]) == (200, expected)


@pytest.mark.parametrize("accept", ["image/gif", "image/avif, image/gif;q=0.5"])
async def test_images_that_are_not_made_here_are_refused(
    api: httpx.AsyncClient, worker: StandInWorker, accept: str
) -> None:
    answer = await api.post("/generate", json={"prompt": "a cat"}, headers={"Accept": accept})
    assert is_problem(answer, 406, "not-acceptable")
    assert "image/png, image/jpeg, image/webp" in answer.json()["detail"]
    assert worker.made == []


@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp"])
async def test_the_answer_is_the_image(api: httpx.AsyncClient, worker: StandInWorker, image_format: str) -> None:
    headers = {"Accept": f"image/{image_format}"}
    answer = await api.post("/generate", json={"prompt": "a cat", "seed": 7}, headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (200, f"image/{image_format}")
    assert Image.open(io.BytesIO(answer.content)).format == image_format.upper()
    assert answer.headers["fourstep-seed"] == "7"
    assert answer.headers["fourstep-id"] == worker.made[0].job_id
    assert answer.headers["etag"] == f'"{hashlib.sha256(answer.content).hexdigest()}"'


async def test_several_images_do_not_fit(api: httpx.AsyncClient, worker: StandInWorker) -> None:
    for several, field in (({"num_images": 2}, "num_images"), ({"seeds": [1, 2]}, "seeds")):
        answer = await api.post("/generate", json={"prompt": "a cat", **several}, headers={"Accept": "image/png"})
        assert is_problem(answer, 422, "invalid-request")
        assert answer.json()["errors"][0]["field"] == field


async def test_two_different_formats_are_refused(api: httpx.AsyncClient, worker: StandInWorker) -> None:
    answer = await api.post("/generate", json={"prompt": "a", "format": "webp"}, headers={"Accept": "image/png"})
    assert is_problem(answer, 406, "not-acceptable")
