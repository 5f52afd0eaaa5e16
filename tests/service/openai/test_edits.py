"""Edits and variations by OpenAI's own client, sync and async, and by forms that other clients send."""

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import openai
import pytest
from PIL import Image

from tests.service.calls import is_problem
from tests.service.pictures.files import mask, picture, saved
from tests.service.stand_in_worker import StandInWorker


@pytest.fixture
async def client(api: httpx.AsyncClient, worker: StandInWorker) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{api.base_url}/v1", api_key="any", max_retries=0) as client:
        yield client


async def test_an_edit_paints_what_the_mask_leaves_free(
    client: openai.AsyncOpenAI, worker: StandInWorker, tmp_path: Path
) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(picture())
    answer = await client.images.edit(
        image=path.open("rb"),
        mask=("mask.png", mask()),
        prompt="a cat",
        n=2,
        size="96x64",  # type: ignore[call-overload]
        input_fidelity="high",
        extra_body={"seed": 7, "strength": 0.9},
    )
    assert [image.model_extra for image in answer.data] == [{"seed": 7}, {"seed": 8}]
    assert answer.size == "96x64"
    assert [warning["field"] for warning in answer.warnings] == ["input_fidelity"]
    source = worker.claims[-1].source
    assert source is not None
    assert source.mask is not None
    assert Image.open(io.BytesIO(source.image)).size == (96, 64)
    assert worker.made[-1].source is not None
    assert worker.made[-1].source.strength == 0.9


async def test_what_is_transparent_is_the_mask_where_there_is_no_other(
    client: openai.AsyncOpenAI, worker: StandInWorker
) -> None:
    hole = Image.new("RGBA", (64, 64), "green")
    hole.paste((0, 0, 0, 0), (0, 0, 32, 64))
    for file, masked in ((saved(hole, "PNG"), True), (picture(), False)):
        await client.images.edit(image=file, prompt="a cat")
        source = worker.claims[-1].source
        assert source is not None
        assert (source.mask is not None) is masked


async def test_the_sync_client_edits_and_varies(api: httpx.AsyncClient, worker: StandInWorker) -> None:
    def draw() -> list[int]:
        with openai.OpenAI(base_url=f"{api.base_url}/v1", api_key="any", max_retries=0) as client:
            edited = client.images.edit(image=[("a.png", picture())], prompt="a cat", response_format="url")
            varied = client.images.create_variation(image=("a.png", picture()), n=3, response_format="b64_json")
            return [len(edited.data or []), len(varied.data or [])]

    assert await asyncio.to_thread(draw) == [1, 3]
    assert [task.source is not None and task.source.strength for task in worker.made] == [0.75] * 4


async def test_the_async_client_varies_and_streams_edits(client: openai.AsyncOpenAI, worker: StandInWorker) -> None:
    varied = await client.images.create_variation(image=("a.png", picture()))
    assert len(varied.data or []) == 1
    events = [event.type async for event in await client.images.edit(image=picture(), prompt="a cat", stream=True)]
    assert events == ["image_edit.completed"]


async def test_forms_of_other_clients_are_read(api: httpx.AsyncClient, worker: StandInWorker) -> None:
    form = {"prompt": "a cat", "n": "1", "seeds[]": ["3", "4"], "response_format": "b64_json"}
    del form["n"]
    answer = await api.post("/v1/images/edits", data=form, files={"image[]": ("a.png", picture())})
    assert answer.status_code == 200, answer.text
    assert [task.seed for task in worker.made] == [3, 4]


@pytest.mark.parametrize(
    ("fields", "files", "param"),
    [
        ({"prompt": "a cat"}, {}, "image"),
        ({}, {"image": picture()}, "prompt"),
        ({"prompt": "a cat", "n": "many"}, {"image": picture()}, "n"),
        ({"prompt": "a cat", "steps": "30"}, {"image": picture()}, "steps"),
        ({"prompt": "a cat", "nonsense": "1"}, {"image": picture()}, "nonsense"),
        ({"prompt": "a cat"}, {"image": b"no picture"}, "image"),
        ({"prompt": "a cat"}, {"image": picture(), "mask": mask((8, 8))}, "mask"),
        ({"prompt": "a cat"}, {"image": b"x" * (8 * 2**20 + 1)}, "image"),
    ],
)
async def test_what_does_not_fit_is_refused_by_name(
    api: httpx.AsyncClient, worker: StandInWorker, fields: dict, files: dict, param: str
) -> None:
    given = {"empty": (None, "")} if not files else {name: (f"{name}.png", file) for name, file in files.items()}
    given.pop("empty", None)
    answer = await api.post("/v1/images/edits", data=fields, files=given or {"user": (None, "x")})
    assert is_problem(answer, 422, "invalid-request")
    assert answer.json()["error"]["param"] == param
    assert worker.made == []


async def test_what_is_no_form_is_refused(api: httpx.AsyncClient) -> None:
    answer = await api.post("/v1/images/edits", json={"prompt": "a cat"})
    assert is_problem(answer, 415, "unsupported-media-type")
    broken = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = await api.post("/v1/images/variations", content=b"--x\r\nno form", headers=broken)
    assert is_problem(answer, 400, "malformed-form")
    many = [("image", ("a.png", picture())) for _ in range(2)]
    answer = await api.post("/v1/images/edits", data={"prompt": "a cat"}, files=many)
    assert answer.json()["error"]["param"] == "image"


async def test_a_form_sent_again_with_its_key_is_carried_out_once(
    client: openai.AsyncOpenAI, worker: StandInWorker
) -> None:
    once = {"Idempotency-Key": "8"}
    answers = [
        await client.images.edit(image=picture(), prompt="a cat", extra_headers=once, response_format="url")
        for _ in range(2)
    ]
    assert answers[0] == answers[1]
    assert len(worker.made) == 1
    with pytest.raises(openai.UnprocessableEntityError, match="another body"):
        await client.images.edit(image=picture((32, 32)), prompt="a cat", extra_headers=once)
