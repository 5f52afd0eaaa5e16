"""Refuses bodies that are too large, by their declared length or as soon as too much has arrived.

The framework's own `max_body_size` answers with plain text, not problem details, when the length is declared.
"""

from contextlib import AsyncExitStack

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.limits.room import Room
from service.problems import MAX_BODY_BYTES, BodyTooLargeError, answer_counted, body_too_large

# The endpoints that take a picture and a mask; as base64, with the rest of the form or document.
WITH_PICTURES = ("/generate", "/v1/images/edits", "/v1/images/variations")
AS_JSON = "/generate"

# Every value of a JSON document has one of these characters, and every escape; base64 has none of them.
STRUCTURE = (b'"', b",", b"[", b"{", b"\\")
ESCAPED_SLASH = b"\\/"
"""As some libraries write the slashes of base64."""


class BodyLimit:
    """ASGI middleware: 413 problem for bodies of more than MAX_BODY_BYTES, and what two pictures of `picture_bytes`
    take where they may come.

    The same for a JSON document whose structure alone has more than MAX_BODY_BYTES: parsed, a byte of it takes some
    hundred bytes of memory, and time in which no other call is answered. A body that is larger than MAX_BODY_BYTES
    takes `room` of its caller until the call ends.
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
            await answer_counted(Request(scope), body_too_large(most))(scope, receive, send)
            return
        received = structure = 0

        async def receive_counting() -> Message:
            nonlocal received, structure
            message = await receive()
            body = message.get("body", b"")
            before, received = received, received + len(body)
            if received > most:
                raise BodyTooLargeError(most)
            if scope["path"] == AS_JSON:
                structure += sum(map(body.count, STRUCTURE)) - body.count(ESCAPED_SLASH)
            if structure > MAX_BODY_BYTES:
                raise BodyTooLargeError(MAX_BODY_BYTES, beside_pictures=True)
            if before <= MAX_BODY_BYTES < received:
                await held.enter_async_context(self._room.taken(scope["state"]["caller"], declared or most))
            return message

        async with AsyncExitStack() as held:
            await self._app(scope, receive_counting, send)
