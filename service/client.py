"""`fourstep generate`: asks a running server for images and writes them to files."""

import base64
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console

# The server answers by itself when its deadline passes; this only guards against a dead one.
ANSWER_TIMEOUT_S = 630.0


class GenerationFailed(Exception):
    """Why no images came back, in one line."""


def generate_files(
    server: str, request: dict[str, Any], folder: Path, console: Console, api_key: str | None = None
) -> list[Path]:
    """Send `request` to ``server/generate``; write ``<seed>.<format>`` files into `folder` and print their seeds."""
    with console.status(f"{request.get('num_images', 1)} image(s) from {server}"):
        answer = _post(f"{server.rstrip('/')}/generate", request, api_key)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for image in answer["images"]:
        path = folder / f"{int(image['seed'])}.{request['format']}"
        path.write_bytes(base64.b64decode(image["b64"], validate=True))
        console.print(f"seed {image['seed']}  {path}", highlight=False)
        paths.append(path)
    console.print(f"{len(paths)} image(s) by {answer['model']} in {answer['timings']['total']:.2f} s", highlight=False)
    return paths


def _post(url: str, request: dict[str, Any], api_key: str | None) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else None
    try:
        answer = httpx.post(url, json=request, headers=headers, timeout=ANSWER_TIMEOUT_S)
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise GenerationFailed(f"no answer from {url}: {error}") from error
    if answer.is_success:
        return answer.json()
    try:
        raise GenerationFailed(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        raise GenerationFailed(f"{url} answered {answer.status_code}") from None
