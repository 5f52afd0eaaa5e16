"""LiteLLM's proxy between OpenAI's own library and the server: calls, pictures and errors go through it."""

import asyncio
import base64
import io
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import openai
import pytest
from PIL import Image

from jobs.settings import ApiSettings
from jobs.testing.samples import MODEL
from jobs.testing.waiting import SAFETY_NET_S, wait_until
from tests.running import answers
from tests.service.stand_in_worker import StandInWorker

KEY = "sk-a-key-of-the-proxy-4f1c9a7be2d06385"
SERVER_KEY = "a key of the server"
PNG = b"\x89PNG"


@pytest.fixture
def settings(redis_url: str, free_port: Callable[[], int]) -> ApiSettings:
    own = {"port": free_port(), "api_keys": SERVER_KEY, "timeout_s": 600}
    return ApiSettings.model_validate({"redis_url": redis_url, **own})


@pytest.fixture
async def proxied(
    api: httpx.AsyncClient, tmp_path: Path, free_port: Callable[[], int]
) -> AsyncIterator[openai.AsyncOpenAI]:
    """OpenAI's client of a proxy that knows the server's model as `dall-e-3`."""
    server = {"model": f"openai/{MODEL}", "api_base": f"{api.base_url}/v1", "api_key": SERVER_KEY}
    config = tmp_path / "config.yaml"  # JSON is YAML
    config.write_text(json.dumps({"model_list": [{"model_name": "dall-e-3", "litellm_params": server}]}))
    environment = os.environ | {
        "CONFIG_FILE_PATH": str(config),
        "LITELLM_MASTER_KEY": KEY,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it looks for prices on the internet
    }
    port = free_port()
    command = ["-m", "uvicorn", "litellm.proxy.proxy_server:app", "--port", str(port)]
    with (tmp_path / "log").open("w") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *command, cwd=tmp_path, env=environment, stdout=log, stderr=log
        )

    def ready() -> bool:
        assert process.returncode is None, (tmp_path / "log").read_text()
        return answers(f"http://127.0.0.1:{port}/health/liveliness") == 200

    try:
        await wait_until(lambda: asyncio.to_thread(ready))
        base = f"http://127.0.0.1:{port}/v1"
        async with openai.AsyncOpenAI(base_url=base, api_key=KEY, timeout=SAFETY_NET_S, max_retries=0) as client:
            yield client
    finally:
        process.terminate()
        await process.wait()


def a_picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(file, "PNG")
    return file.getvalue()


@pytest.mark.slow
async def test_it_passes_calls_pictures_and_errors_on(proxied: openai.AsyncOpenAI, worker: StandInWorker) -> None:
    images = proxied.images
    drawn = await images.generate(
        model="dall-e-3", prompt="a cat", n=2, size="96x64", quality="hd", extra_body={"seed": 7}
    )
    assert [base64.b64decode(image.b64_json or "")[:4] for image in drawn.data or ()] == [PNG, PNG]
    assert [task.seed for task in worker.made] == [7, 8]

    edited = await images.edit(model="dall-e-3", image=("cat.png", a_picture()), prompt="a dog")
    assert [base64.b64decode(image.b64_json or "")[:4] for image in edited.data or ()] == [PNG]
    assert worker.made[-1].source

    with pytest.raises(openai.UnprocessableEntityError, match="not 7x7"):
        await images.generate(model="dall-e-3", prompt="a cat", size="7x7")  # type: ignore[call-overload]
    assert len(worker.seen) == 3
