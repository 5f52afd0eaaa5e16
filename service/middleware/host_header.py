"""Refuses requests without exactly one ``Host`` (RFC 9112, 3.2): addresses in answers are built from it."""

from starlette.types import ASGIApp, Receive, Scope, Send

from service.problems import Problem


class OneHost:
    """ASGI middleware: 400 problem for HTTP/1.1 requests with no ``Host`` or several."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            hosts = sum(name == b"host" for name, _ in scope["headers"])
            if hosts > 1 or (hosts == 0 and scope["http_version"] == "1.1"):
                problem = Problem(400, "bad-host", "Not one Host", f"Send exactly one Host header, not {hosts}.")
                await problem.response(scope["path"])(scope, receive, send)
                return
        await self._app(scope, receive, send)
