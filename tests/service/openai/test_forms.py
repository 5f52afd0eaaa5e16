"""Forms as clients write them: media types, limits, empty fields, and `select`, which is an object."""

import json
from collections.abc import Callable

import httpx
import openai
import pytest

from tests.service.calls import is_problem
from tests.service.pictures.files import mask, picture
from tests.service.stand_in_worker import StandInWorker

PATH = "/v1/images/edits"
CAT, FILE = {"prompt": "a cat", "response_format": "url"}, {"image": ("a.png", picture())}


def _form(fields: dict[str, bytes]) -> bytes:
    parts = (
        b'--x\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (name.encode(), value)
        for name, value in fields.items()
    )
    file = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n' + picture() + b"\r\n"
    return b"".join(parts) + file + b"--x--\r\n"


@pytest.mark.parametrize("codec", ["undefined", "punycode", "utf-7", "no codec"])
async def test_fields_are_utf_8_whatever_the_form_says(
    api: httpx.AsyncClient, worker: StandInWorker, codec: str
) -> None:
    headers = {"Content-Type": f'Multipart/Form-Data; charset="{codec}"; boundary="x"'}
    body = _form({"prompt": "kätzchen".encode(), "response_format": b"url"})
    answer = await api.post(PATH, content=body, headers=headers)
    assert answer.status_code == 200, answer.text
    assert worker.made[-1].prompt == "kätzchen"


@pytest.mark.parametrize(
    ("content_type", "status", "name"),
    [
        ("multipart/form-data", 400, "malformed-form"),
        ("multipart/form-data; boundary=", 400, "malformed-form"),
        ('multipart/form-data; boundary="a\\"b"', 400, "malformed-form"),
        ("multipart/form-data; boundary=\xe9", 400, "malformed-form"),
        ("multipart/form-data\xe9; boundary=x", 415, "unsupported-media-type"),
        ("multipart/form-database; boundary=x", 415, "unsupported-media-type"),
        ("application/json", 415, "unsupported-media-type"),
    ],
)
async def test_what_names_no_form(api: httpx.AsyncClient, content_type: str, status: int, name: str) -> None:
    headers = [(b"Content-Type", content_type.encode("latin-1"))]
    assert is_problem(await api.post(PATH, content=_form({}), headers=headers), status, name)


@pytest.mark.parametrize(
    ("send", "limit"),
    [
        (lambda: {"data": CAT, "files": [("image", ("a.png", picture()))] * 5}, 4),
        (lambda: {"data": {f"field{i}": "1" for i in range(65)}, "files": FILE}, 64),
        (lambda: {"data": {"prompt": "x" * 65537}, "files": FILE}, 65536),
    ],
    ids=["files", "fields", "bytes"],
)
async def test_limits_of_a_form_are_told(api: httpx.AsyncClient, send: Callable[[], dict], limit: int) -> None:
    answer = await api.post(PATH, **send())
    assert is_problem(answer, 400, "malformed-form")
    assert [(error["field"], error["limit"]) for error in answer.json()["errors"]] == [("body", limit)]


async def test_empty_fields_are_absent(api: httpx.AsyncClient, worker: StandInWorker) -> None:
    empty = dict.fromkeys(("size", "n", "seed", "seeds", "quality", "strength", "select", "model"), "")
    answer = await api.post(PATH, data=CAT | empty, files=FILE | {"mask": ("", b"")})
    assert answer.status_code == 200, answer.text
    assert worker.made[-1].source is not None
    assert worker.made[-1].source.strength == 0.75
    for given, param in (({"prompt": ""}, "prompt"), ({"unknown": ""}, "unknown")):
        answer = await api.post(PATH, data=CAT | given, files=FILE)
        assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize(
    "select",
    [
        {"select[diverse]": "true", "select[candidates]": "5"},
        {"select[diverse]": "True", "select[candidates]": "5"},
        {"select": '{"diverse": true, "candidates": 5}'},
    ],
)
async def test_a_diverse_set_of_edits(api: httpx.AsyncClient, worker: StandInWorker, select: dict) -> None:
    answer = await api.post(PATH, data=CAT | {"n": "2"} | select, files=FILE)
    assert answer.status_code == 200, answer.text
    assert worker.seen[-1].select is not None
    assert (worker.seen[-1].select.images, worker.seen[-1].select.candidates) == (2, 5)


@pytest.mark.parametrize(
    ("select", "param"),
    [
        ({"select": "diverse"}, "select"),
        ({"select": "[" * 60000}, "select"),
        ({"select[diverse]": "false"}, "select.diverse"),
        ({"select[diverse]": "False"}, "select.diverse"),
        ({"select": '{"diverse": true, "Candidates": 5}'}, "select.Candidates"),
        ({"select": '{"diverse": TRUE}'}, "select"),
        ({"select": json.dumps({"diverse": True} | dict.fromkeys(map(str, range(4000))))}, "select"),
        ({"select[diverse]": "true", "select[candidates]": "many"}, "select.candidates"),
    ],
)
async def test_what_is_no_diverse_set(api: httpx.AsyncClient, worker: StandInWorker, select: dict, param: str) -> None:
    answer = await api.post(PATH, data=CAT | select, files=FILE)
    assert is_problem(answer, 422, "invalid-request")
    assert answer.json()["error"]["param"] == param


async def test_openais_library_asks_for_a_diverse_set(api: httpx.AsyncClient, worker: StandInWorker) -> None:
    select = {"select": {"diverse": True, "candidates": 6}}
    async with openai.AsyncOpenAI(base_url=f"{api.base_url}/v1", api_key="any", max_retries=0) as client:
        for call in (
            client.images.edit(image=picture(), mask=("m.png", mask()), prompt="a cat", n=2, extra_body=select),
            client.images.create_variation(image=("a.png", picture()), n=2, extra_body=select),
        ):
            assert len((await call).data or []) == 2
            assert worker.seen[-1].select is not None
            assert worker.seen[-1].select.candidates == 6


@pytest.mark.parametrize("field", ["strength", "guidance_scale", "cfg_scale"])
async def test_no_number_of_a_form_is_infinite(api: httpx.AsyncClient, worker: StandInWorker, field: str) -> None:
    for text in ("nan", "inf", "1e999"):
        answer = await api.post(PATH, data=CAT | {field: text}, files=FILE)
        assert is_problem(answer, 422, "invalid-request")
        (error,) = answer.json()["errors"]
        assert (error["field"], error["message"]) == (field, "Input should be a finite number")
