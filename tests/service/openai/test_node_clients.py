"""OpenAI's own client for Node, the Vercel AI SDK and LangChain for JavaScript."""

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.settings import ApiSettings
from jobs.testing.samples import MODEL
from tests.service.running_api import running_api

HERE = Path(__file__).with_name("node")
# Beside the virtual environment's other caches, so that one installation serves every run.
INSTALLED = Path(__file__).parents[3] / "build" / "node-clients"


async def _run(*command: str | Path) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, cwd=INSTALLED, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return output.decode()


@pytest.mark.slow
@pytest.mark.needs("node", "npm")
@pytest.mark.usefixtures("worker")
async def test_each_client_draws(redis_url: str, free_port: Callable[[], int]) -> None:
    shutil.copytree(HERE, INSTALLED, dirs_exist_ok=True)
    try:
        await _run("npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--prefer-offline")
    except AssertionError as error:
        pytest.skip(f"npm cannot install the clients; it needs its registry: {error}")
    aliases = f"dall-e-3={MODEL}"
    settings = ApiSettings(redis_url=redis_url, port=free_port(), model_aliases=aliases, size_fallback="nearest")  # type: ignore[arg-type]
    async with running_api(settings) as api:
        drawn = json.loads(await _run("node", "clients.js", f"{api.base_url}/v1"))
        drawn_by_langchain = await api.get(drawn.pop("langchain"))
    assert drawn_by_langchain.content.startswith(b"\x89PNG")
    assert drawn == {
        "openai": [["PNG", "PNG"], ["quality", "style", "size"]],
        "fromPictures": [["PNG"], ["PNG", "PNG"]],
        "streamed": [["image_generation.completed", "PNG"]],
        "unknown": [404, "model_not_found"],
        "images": {"openai": ["PNG", "image/png"], "compatible": ["PNG", "image/png"]},
    }
