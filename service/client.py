"""`fourstep generate`: request images from a running server and write them to files."""

import base64
import json
import os
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console

# Longer than any timeout of a call: only a server that died does not answer before.
ANSWER_TIMEOUT_S = 630.0
# Limit of the answer for each image, as base64; a longer answer is refused.
MAX_IMAGE_BYTES = 32 * 2**20


class GenerationFailedError(Exception):
    """The reason why no images came back, in one line."""


def generate_files(
    server: str, request: dict[str, Any], folder: Path, console: Console, api_key: str | None = None
) -> list[Path]:
    """Send `request` to ``server/generate``; write ``<seed>.<format>`` files into `folder` and print their seeds."""
    _check_writable(folder)  # before the images are made
    with console.status(f"{request.get('num_images', 1)} image(s) from {server}"):
        answer = _post(f"{server.rstrip('/')}/generate", request, api_key)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for image in answer["images"]:
        path = folder / f"{int(image['seed'])}.{request['format']}"
        path.write_bytes(base64.b64decode(image["b64"], validate=True))
        _say(console, f"seed {int(image['seed'])}  {path}")
        paths.append(path)
    for warning in answer.get("warnings", []):
        _say(console, f"{warning['field']}: {warning['message']}")
    diversity = f", diversity {answer['diversity']['score']:.2f}" if "diversity" in answer else ""
    seconds = answer["timings"]["total"]
    _say(console, f"{len(paths)} image(s) by {answer['model']} in {seconds:.2f} s{diversity}")
    return paths


def as_base64(file: Path | None) -> str | None:
    """Read a file for a request; None for none."""
    return None if file is None else base64.b64encode(file.read_bytes()).decode()


def _say(console: Console, text: str) -> None:
    console.print(plain(text), highlight=False, markup=False)


def plain(text: object) -> str:
    """A server's text with its control characters escaped: a terminal would obey them."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in str(text))


def _check_writable(folder: Path) -> None:
    """Raise PermissionError when `folder` cannot be made or written to."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise PermissionError(f"{existing} is no folder that can be written to")


def _post(url: str, request: dict[str, Any], api_key: str | None) -> dict[str, Any]:
    # No compressed answers: a few bytes could become gigabytes.
    headers = {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {api_key}"} if api_key else {})
    most = MAX_IMAGE_BYTES * request.get("num_images", 1)
    try:
        with httpx.stream("POST", url, json=request, headers=headers, timeout=ANSWER_TIMEOUT_S) as answer:
            body = _read(answer, most)
    except (httpx.TransportError, httpx.InvalidURL) as error:
        hint = "; `fourstep up` starts a server" if isinstance(error, httpx.ConnectError) else ""
        raise GenerationFailedError(f"no answer from {url}: {error}{hint}") from error
    try:
        document = json.loads(body)
        if answer.is_success:
            return document
        raise GenerationFailedError(plain(document["detail"]))
    except (ValueError, KeyError, TypeError):
        raise GenerationFailedError(f"{url} answered {answer.status_code}") from None


def _read(answer: httpx.Response, most: int) -> bytes:
    if answer.headers.get("content-encoding", "identity") != "identity":
        raise GenerationFailedError(f"{answer.url} compressed its answer though it was asked not to")
    body = bytearray()
    for chunk in answer.iter_raw():
        body += chunk
        if len(body) > most:
            raise GenerationFailedError(f"{answer.url} answered more than {most // 2**20} MiB")
    return bytes(body)
