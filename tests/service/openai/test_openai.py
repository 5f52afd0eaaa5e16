"""OpenAI's own client, unmodified."""

import base64
import hashlib
import io
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import openai
import pytest
from PIL import Image

from jobs.settings import ApiSettings
from jobs.testing.samples import MODEL
from service.openai.schemas import openai_field_names
from service.problems import FieldError, InvalidFieldsError
from tests.service.running_api import running_api
from tests.service.stand_in_worker import FAILING_PROMPT, StandInWorker


@pytest.fixture
async def client(api: httpx.AsyncClient, worker: StandInWorker) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{api.base_url}/v1", api_key="any", max_retries=0) as client:
        yield client


async def test_images_come_inline(client: openai.AsyncOpenAI, worker: StandInWorker) -> None:
    answer = await client.images.generate(prompt="a cat", n=3, extra_body={"seed": 7})
    assert answer.data is not None
    assert [image.model_extra for image in answer.data] == [{"seed": 7}, {"seed": 8}, {"seed": 9}]
    assert len({image.b64_json for image in answer.data}) == 3
    picture = Image.open(io.BytesIO(base64.b64decode(answer.data[0].b64_json or "")))
    assert (picture.format, picture.size) == ("PNG", (64, 64))
    assert answer.created == int(worker.made[0].created)


async def test_images_come_by_address(client: openai.AsyncOpenAI) -> None:
    answer = await client.images.generate(
        prompt="a cat",
        model=MODEL,
        size="96x64",  # type: ignore[call-overload]
        response_format="url",
        output_format="webp",
        output_compression=40,
        quality="auto",
        user="someone",
    )
    (image,) = answer.data
    async with httpx.AsyncClient() as browser:
        data = (await browser.get(image.url)).content
    assert Image.open(io.BytesIO(data)).size == (96, 64)
    assert hashlib.sha256(data).hexdigest() in image.url
    assert (answer.size, answer.output_format) == ("96x64", "webp")


async def test_models_are_listed(client: openai.AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == [MODEL]
    assert (await client.models.retrieve(MODEL)).owned_by == "fourstep"
    with pytest.raises(openai.NotFoundError) as caught:
        await client.models.retrieve("dall-e-3")
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"prompt": ""}, "prompt"),
        ({"n": 65}, "n"),
        ({"size": "100x100"}, "size"),
        ({"size": "large"}, "size"),
        ({"extra_body": {"steps": 30}}, "steps"),
        ({"extra_body": {"cfg_scale": 7}}, "cfg_scale"),
        ({"n": 2, "extra_body": {"seeds": [1, 2]}}, "body"),
        ({"stream": True, "partial_images": 4}, "partial_images"),
        ({"extra_body": {"negative_prompt": "x"}}, "negative_prompt"),
        ({"n": 3, "extra_body": {"seed": 2**63 - 2}}, "seed"),
    ],
)
async def test_what_is_not_served_is_refused_by_name(
    client: openai.AsyncOpenAI, wrong: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        await client.images.generate(**{"prompt": "a cat", **wrong})
    error = caught.value
    assert (error.type, error.param, error.code) == ("invalid_request_error", param, "invalid_request")
    assert isinstance(error.body, dict)
    assert param in error.body["message"]


async def test_failures_are_raised_as_openais(client: openai.AsyncOpenAI, worker: StandInWorker) -> None:
    with pytest.raises(openai.InternalServerError, match="asked to"):
        await client.images.generate(prompt=FAILING_PROMPT)


async def test_the_clients_key_is_ours(redis_url: str, free_port: Callable[[], int], worker: StandInWorker) -> None:
    settings = ApiSettings(redis_url=redis_url, port=free_port(), api_keys="secret")  # type: ignore[arg-type]
    async with running_api(settings) as api:
        for key, expected in (("secret", None), ("wrong", openai.AuthenticationError)):
            async with openai.AsyncOpenAI(base_url=f"{api.base_url}/v1", api_key=key, max_retries=0) as client:
                if expected is None:
                    assert (await client.images.generate(prompt="a cat")).data
                else:
                    with pytest.raises(expected):
                        await client.images.generate(prompt="a cat")


async def test_a_call_sent_again_by_the_client_is_carried_out_once(
    client: openai.AsyncOpenAI, worker: StandInWorker
) -> None:
    once = {"Idempotency-Key": "7"}
    first = await client.images.generate(prompt="a cat", extra_headers=once)
    second = await client.images.generate(prompt="a cat", extra_headers=once)
    assert first == second
    assert len(worker.made) == 1


def test_fields_are_renamed_and_the_limit_that_refuses_a_call_is_kept() -> None:
    error = FieldError(field="num_images", message="too many")
    with pytest.raises(InvalidFieldsError) as caught, openai_field_names():
        raise InvalidFieldsError([error], "images")
    assert ([one.field for one in caught.value.errors], caught.value.limit) == (["n"], "images")
