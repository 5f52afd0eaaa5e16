"""Refuses bodies that are too large, by their declared length or as soon as too much has arrived.

The framework's own `max_body_size` answers with plain text, not problem details, when the length is declared.
"""

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.problems import MAX_BODY_BYTES, body_too_large


class BodyLimit:
    """ASGI middleware: 413 problem for bodies of more than MAX_BODY_BYTES."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "0")
        if declared.isdecimal() and int(declared) > MAX_BODY_BYTES:
            await body_too_large().response(scope["path"])(scope, receive, send)
            return
        received = 0

        async def receive_counting() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > MAX_BODY_BYTES:
                raise HTTPException(413)
            return message

        await self._app(scope, receive_counting, send)
