"""API keys, sent as ``Authorization: Bearer``."""

import hashlib
import hmac
from collections.abc import Sequence
from typing import Annotated

from fastapi import Depends, Request
from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.problems import Problem

# Pages without secrets, and probes. An image's address holds the hash of its content, which only its requester gets:
# without a key, a browser can show the image and any OpenAI client can fetch it.
OPEN_PATHS = ("/", "/healthz", "/readyz", "/docs", "/status", "/openapi.json")
OPEN_FOLDERS = ("/static/", "/images/")


class ApiKeys:
    """ASGI middleware: 401 problem without a key, 403 with an unknown one, before the request's body is read.

    Under ``/v1`` an unknown key is 401 too. Without `keys` every call may pass. ``request.state.caller`` is the hash of
    the key, and the only form of it in Redis.
    """

    def __init__(self, app: ASGIApp, keys: Sequence[SecretStr]) -> None:
        self._app = app
        self._digests = [key_digest(key.get_secret_value()) for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            caller = self._caller(Headers(scope=scope).get("authorization", ""))
            if caller is None and self._digests and not _open(scope):
                problem = _refused(scope)
                await problem.response(scope["path"])(scope, receive, send)
                return
            scope.setdefault("state", {})["caller"] = caller or ""
        await self._app(scope, receive, send)

    def _caller(self, authorization: str) -> str | None:
        scheme, _, key = authorization.partition(" ")
        if scheme.lower() != "bearer":
            return None
        digest = key_digest(key.strip())
        # All hashes are compared, and in constant time: the duration reveals nothing about any key.
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        return digest if any(matches) else None


def key_digest(key: str) -> str:
    """The hash of an API key, which stands for it wherever it is kept."""
    return hashlib.sha256(key.encode()).hexdigest()


def _open(scope: Scope) -> bool:
    path = scope["path"]
    return "open" in scope.get("state", {}) or path in OPEN_PATHS or path.startswith(OPEN_FOLDERS)


def _refused(scope: Scope) -> Problem:
    ask = {"WWW-Authenticate": "Bearer"}
    if "authorization" not in Headers(scope=scope):
        detail = "Send an API key as Authorization: Bearer KEY."
        return Problem(401, "no-api-key", "A key is needed", detail, headers=ask)
    detail = "Authorization: not a Bearer key of this server."
    if scope["path"].startswith("/v1/"):  # OpenAI's clients expect it so
        return Problem(401, "invalid-api-key", "The key is not known", detail, headers=ask)
    return Problem(403, "unknown-api-key", "The key is not known", detail)


async def _caller(request: Request) -> str:
    return request.state.caller


Caller = Annotated[str, Depends(_caller)]
