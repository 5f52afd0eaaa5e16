"""The lines of docs/security.md that no other test shows."""

import asyncio
import gzip
import hashlib
import hmac
import io
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest
from redis.asyncio import Redis
from rich.console import Console
from typer.testing import CliRunner

from jobs.commands import dead_letters
from jobs.settings import ApiSettings
from jobs.testing.samples import MODEL, sample_card, sample_tasks
from jobs.testing.waiting import outcome
from service import client
from service.middleware import bounded_protocol
from tests.service.api_process import api_process
from tests.service.running_api import running_api
from tests.service.stand_in_worker import FAILING_PROMPT, StandInWorker
from tests.task_queue import TaskQueue

KEY = "a-key-nobody-may-see"
PROMPT = "a prompt nobody may see"


async def raw(port: int, *parts: bytes) -> bytes:
    """Send these bytes and return the server's first answer; empty when it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
        return await outcome(reader.read(2**16))
    finally:
        writer.close()


async def test_an_endless_head_ends_the_connection(api: httpx.AsyncClient, settings: ApiSettings) -> None:
    head = b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: "
    assert (await raw(settings.port, head, b"x" * 60_000, b"x" * 10_000)).startswith(b"HTTP/1.1 431")


async def test_a_head_may_be_long(api: httpx.AsyncClient) -> None:
    assert (await api.get("/healthz", headers={"X": "x" * 30_000})).status_code == 200


async def test_a_head_that_does_not_end_is_not_waited_for(
    api: httpx.AsyncClient, settings: ApiSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(bounded_protocol, "HEAD_TIMEOUT_S", 0.1)
        assert (await raw(settings.port, b"GET /healthz HT")).startswith(b"HTTP/1.1 408")
        assert (await raw(settings.port)).startswith(b"HTTP/1.1 408")
    assert (await api.get("/healthz")).status_code == 200


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("name", [b"Idempotency-Key", b"Host", b"Accept", b"Prefer", b"Last-Event-ID"])
@pytest.mark.parametrize("break_", [b"\n", b"\r", b"\r\n ", b"%0d%0a", b"\x00", b"\xe5\x98\x8a\xe5\x98\x8d"])
async def test_nothing_a_client_sends_becomes_a_header(
    api: httpx.AsyncClient, settings: ApiSettings, name: bytes, break_: bytes
) -> None:
    body = b'{"prompt": "a cat", "response": "url"}'
    head = b"POST /generate HTTP/1.1\r\n%s: one%sInjected: yes\r\nContent-Type: application/json\r\n" % (name, break_)
    head += b"Host: a\r\n" if name != b"Host" else b""
    answer = await raw(settings.port, head + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)
    assert answer.startswith(b"HTTP/1.1 ")
    assert b"\ninjected:" not in answer.partition(b"\r\n\r\n")[0].lower()


TRICKS = [
    *("/images/../app.py", "/images/..%2fapp.py", "/images/%2e%2e/%2e%2e/etc/passwd", "/images/{sha}.py"),
    *("/images/{sha}.png/../../app.py", "/images/{sha}%00.png", "/images/{SHA}.png", "/images/{sha}", "/images/*.png"),
    *(
        "/images//etc/passwd",
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/..%2fapp.py",
        "/static//etc/passwd",
    ),
]


@pytest.mark.parametrize("path", TRICKS)
async def test_no_path_leads_out(api: httpx.AsyncClient, settings: ApiSettings, redis: Redis, path: str) -> None:
    await TaskQueue(redis, MODEL).announce("w1", sample_card(), ttl_s=600)
    target = path.format(sha="0" * 64, SHA="A" * 64)
    request = b"GET %s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" % target.encode()
    answer = await raw(settings.port, request)
    assert re.match(rb"HTTP/1.1 (400|404|422) ", answer), answer
    assert b"import" not in answer
    assert b"root:" not in answer


async def test_every_key_is_compared_in_constant_time(
    redis_url: str, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[str, str]] = []
    compare = hmac.compare_digest

    def noting(one: str, other: str) -> bool:
        compared.append((one, other))
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", noting)
    keys = ["one", "another and longer one", "three"]
    async with running_api(
        ApiSettings.model_validate({"redis_url": redis_url, "port": free_port(), "api_keys": ",".join(keys)})
    ) as api:
        for key in ["one", "three", "nobody's", "x"]:
            compared.clear()
            await api.get("/models", headers={"Authorization": f"Bearer {key}"})
            assert len(compared) == len(keys)
            assert {len(digest) for pair in compared for digest in pair} == {64}


@pytest.mark.slow
async def test_neither_keys_nor_prompts_are_logged_and_keys_stand_nowhere(
    redis: Redis, redis_url: str, free_port: Callable[[], int], worker: StandInWorker
) -> None:
    headers = {"Authorization": f"Bearer {KEY}", "Idempotency-Key": "a name nobody may see"}
    variables = {"FOURSTEP_API_KEYS": KEY, "FOURSTEP_LOG_LEVEL": "debug"}
    async with api_process(redis_url, free_port(), **variables) as (process, api):
        for body in ({"prompt": PROMPT}, {"prompt": PROMPT, "seed": -1}, {"prompt": PROMPT, "nobody may": 1}):
            await api.post("/generate", json=body, headers=headers)
        failing = {"prompt": FAILING_PROMPT}
        assert (await api.post("/generate", json=failing, headers=headers | {"Idempotency-Key": "2"})).is_server_error
        await api.post("/generate", content=PROMPT.encode(), headers=headers)
        await api.get(f"/images/{KEY}", headers={"Authorization": f"Bearer {KEY}x"})
        await api.get(f"/?{KEY}", headers={"X": PROMPT})
        process.terminate()
        _, log = await process.communicate()
    assert b"/generate" in log
    assert b"nobody" not in log
    assert FAILING_PROMPT.encode() not in log
    stored = list(await redis.keys("*"))
    for key in list(stored):
        if await redis.type(key) == b"hash":
            stored += (await redis.hgetall(key)).values()
        elif await redis.type(key) == b"string":
            stored.append(await redis.get(key))
    assert not [value for value in stored if b"nobody" in value]


async def test_what_clients_name_freely_is_hashed_in_redis(
    redis: Redis, api: httpx.AsyncClient, worker: StandInWorker
) -> None:
    prompt = "'; redis.call('FLUSHALL') --]] {other} \\x00 *"
    headers = {"Idempotency-Key": "{other}:* ]] FLUSHALL"}
    assert (await api.post("/generate", json={"prompt": prompt}, headers=headers)).status_code == 200
    assert worker.made[0].prompt == prompt
    names = [key.decode() for key in await redis.keys("*")]
    assert all(
        re.fullmatch(r"fourstep:(models|call:[0-9a-f]{32}|\{emoji-test\}:[a-z-]+(:[a-z0-9._-]+)?)", name)
        for name in names
    ), names


@pytest.mark.slow
def test_the_api_has_no_http_client_and_no_field_is_an_address_but_for_webhooks() -> None:
    """The field is refused unless the operator wants it, and the client is loaded only then: see test_webhooks.py."""
    code = """
import sys, service.app
from service.schemas.generate_request import GenerateRequest
from service.openai.schemas import ImagesRequest
print(sorted({'httpx', 'httpcore', 'aiohttp', 'requests', 'urllib3'} & set(sys.modules)))
print(sorted({name for body in (GenerateRequest, ImagesRequest) for name in body.model_fields
              if any(word in (body.model_fields[name].description or '') for word in ('address', 'http', 'URL'))}))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split("\n")[:2] == ["[]", "['webhook']"]


async def test_terminal_codes_of_a_prompt_do_not_reach_an_operators_terminal(
    redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = TaskQueue(redis, MODEL)
    await queue.announce("w1", sample_card(), ttl_s=600)
    await queue.admit(sample_tasks(1, prompt="\x1b[2J\x1b]0;owned\x07\nfourstep: all is well\r\u202e"), 10, 60)
    (claim,) = await queue.claim("w1", 1, block_s=0)
    await queue.bury(claim, "given up", ttl_s=60)
    monkeypatch.setenv("FOURSTEP_REDIS_URL", redis_url)
    listed = await asyncio.to_thread(CliRunner().invoke, dead_letters.app, ["list"])
    assert listed.exit_code == 0
    (line,) = listed.output.splitlines()
    assert line.isprintable()


@contextmanager
def server_answering(body: bytes, headers: dict[str, str], status: int = 200) -> Iterator[str]:
    """Address of a server that answers every POST so."""

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            with suppress(ConnectionError):  # it stops reading, as it should
                self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


BOMB = {"images": [{"seed": 1, "b64": "A" * 10_000_000}], "model": "m", "timings": {"total": 1}}


@pytest.mark.parametrize(
    ("body", "headers", "reason"),
    [
        (gzip.compress(json.dumps(BOMB).encode()), {"Content-Encoding": "gzip"}, "compressed"),
        (b" " * 3_000_000, {}, "more than 1 MiB"),
    ],
    ids=["compressed", "endless"],
)
def test_an_answer_that_explodes_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: bytes, headers: dict[str, str], reason: str
) -> None:
    monkeypatch.setattr(client, "MAX_IMAGE_BYTES", 2**20)
    with (
        server_answering(body, headers) as url,
        pytest.raises(client.GenerationFailedError, match=reason),
    ):
        client.generate_files(url, {"prompt": "a cat", "format": "png"}, tmp_path / "out", Console(file=io.StringIO()))
    assert not (tmp_path / "out").exists()


def test_a_servers_escape_codes_do_not_reach_the_terminal() -> None:
    assert client.plain("\x1b[2Jred \x07\u202e[bold]") == "\\x1b[2Jred \\x07\\u202e[bold]"


@pytest.mark.parametrize("status", [200, 422])
def test_what_a_server_says_is_printed_as_text(tmp_path: Path, status: int) -> None:
    told = "\x1b[2J\x1b]0;owned\x07"
    warning = {"field": told, "message": told}
    answer = {"images": [], "model": told, "timings": {"total": 1}, "warnings": [warning]}
    heard = io.StringIO()
    with server_answering(json.dumps(answer | {"detail": told}).encode(), {}, status) as url:
        try:
            client.generate_files(url, {"prompt": "a cat", "format": "png"}, tmp_path, Console(file=heard))
        except client.GenerationFailedError as error:
            heard.write(str(error))
    assert "owned" in heard.getvalue()
    assert not set("\x1b\x07") & set(heard.getvalue())


async def test_jobs_and_images_have_addresses_that_cannot_be_guessed(
    api: httpx.AsyncClient, worker: StandInWorker
) -> None:
    answers = [(await api.post("/generate", json={"prompt": "a cat", "response": "url"})).json() for _ in range(3)]
    assert len({answer["id"] for answer in answers}) == 3
    assert all(re.fullmatch("[0-9a-f]{32}", answer["id"]) for answer in answers)
    data = (await api.get(answers[0]["images"][0]["url"])).content
    assert hashlib.sha256(data).hexdigest() in answers[0]["images"][0]["url"]
