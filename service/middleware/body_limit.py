"""Refuses bodies that are too large, by their declared length or as soon as too much has arrived.

The framework's own `max_body_size` answers with plain text, not problem details, when the length is declared.
"""

from contextlib import AsyncExitStack

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.limits.room import Room
from service.problems import MAX_BODY_BYTES, body_too_large

# The endpoints that take a picture and a mask; as base64, with the rest of the form or document.
WITH_PICTURES = ("/generate", "/v1/images/edits", "/v1/images/variations")


class BodyLimit:
    """ASGI middleware: 413 problem for bodies of more than MAX_BODY_BYTES, and what two pictures of `picture_bytes`
    take where they may come.

    A body that is larger than MAX_BODY_BYTES takes `room` of its caller until the call ends.
    """

    def __init__(self, app: ASGIApp, picture_bytes: int, room: Room) -> None:
        self._app = app
        self._most_with_pictures = MAX_BODY_BYTES + 2 * -(-picture_bytes // 3) * 4
        self._room = room

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most = self._most_with_pictures if scope["path"] in WITH_PICTURES else MAX_BODY_BYTES
        length = Headers(scope=scope).get("content-length", "")
        declared = int(length) if length.isdecimal() else None
        if declared is not None and declared > most:
            await body_too_large(most).response(scope["path"])(scope, receive, send)
            return
        received = 0

        async def receive_counting() -> Message:
            nonlocal received
            message = await receive()
            before, received = received, received + len(message.get("body", b""))
            if received > most:
                raise HTTPException(413, detail=str(most))
            if before <= MAX_BODY_BYTES < received:
                await held.enter_async_context(self._room.taken(scope["state"]["caller"], declared or most))
            return message

        async with AsyncExitStack() as held:
            await self._app(scope, receive_counting, send)
