"""Sampling parameters that clients of other servers send: the model's own pass, others are named with its own."""

from typing import Any

import httpx
import pytest

from jobs.testing.samples import sample_card
from service.schemas.generate_request import GenerateRequest
from service.schemas.sampling_options import sampling_errors
from tests.service.calls import generate, is_problem

pytestmark = pytest.mark.usefixtures("worker")


@pytest.mark.parametrize(
    "own",
    [
        {"steps": 4, "guidance_scale": 1, "negative_prompt": ""},
        {"num_inference_steps": 4, "cfg_scale": 0.0, "negative_prompt": " "},
        {"steps": 4, "num_inference_steps": 4, "guidance_scale": 1.0, "cfg_scale": 1},
        {"steps": None, "guidance_scale": None, "negative_prompt": None},
    ],
)
async def test_the_models_own_values_pass(api: httpx.AsyncClient, own: dict[str, Any]) -> None:
    assert await generate(api, seed=7, **own)


@pytest.mark.parametrize(
    ("field", "value", "limit"),
    [
        ("steps", 30, 4),
        ("steps", 10**400, 4),
        ("num_inference_steps", 0, 4),
        ("guidance_scale", 7.5, 1),
        ("cfg_scale", 7, 1),
        ("negative_prompt", "blurry", ""),
    ],
)
async def test_other_values_are_told_the_models_own(
    api: httpx.AsyncClient, field: str, value: Any, limit: object
) -> None:
    answer = await api.post("/generate", json={"prompt": "a cat", field: value})
    assert is_problem(answer, 422, "invalid-request")
    (error,) = answer.json()["errors"]
    assert (error["field"], error["limit"]) == (field, limit)
    assert "emoji-test takes" in error["message"]


@pytest.mark.parametrize("field", ["guidance_scale", "cfg_scale"])
@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
@pytest.mark.parametrize("path", ["/generate", "/v1/images/generations"])
async def test_no_number_is_infinite(api: httpx.AsyncClient, field: str, number: str, path: str) -> None:
    body, headers = f'{{"prompt": "a cat", "{field}": {number}}}', {"Content-Type": "application/json"}
    answer = await api.post(path, content=body, headers=headers)
    assert is_problem(answer, 422, "invalid-request")
    (error,) = answer.json()["errors"]
    assert (error["field"], error["message"]) == (field, "Input should be a finite number")


def _errors(evaluations: int, scale: float | None, **asked: Any) -> list[str]:
    card = sample_card().model_copy(update={"evaluations": evaluations, "guidance_scale": scale})
    return [error.message for error in sampling_errors(GenerateRequest(prompt="a cat", **asked), card)]


async def test_a_guided_model_takes_its_own_scale() -> None:
    assert _errors(8, 4.5, guidance_scale=4.5) == []
    assert _errors(8, 4.5, guidance_scale=1) == ["emoji-test takes 4.5, not 1.0"]
    assert _errors(8, 4.5, negative_prompt="blurry") == ["emoji-test takes no negative prompt, only an empty one"]


async def test_a_worker_that_announces_no_scale_refuses_each() -> None:
    assert _errors(4, None, guidance_scale=1) == []
    assert _errors(8, None, guidance_scale=4.5) == ["emoji-test does not say its guidance scale; leave it out, not 4.5"]
