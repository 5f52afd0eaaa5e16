"""The answer to calls that still wait when a stopping server's grace period is over."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.problems import server_stopping


class AnswerWhenStopping:
    """ASGI middleware: a request that the server cancels is answered with a 503 problem, not uvicorn's own 500."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def send_noting_start(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, send_noting_start)
        except asyncio.CancelledError:
            if started or scope["type"] != "http":
                raise
            await server_stopping().response(scope["path"])(scope, receive, send)
