"""The port for scrapers: it answers ``/metrics`` without a key, and nothing else."""

from starlette.types import ASGIApp, Receive, Scope, Send

from service.problems import Problem


class MetricsPort:
    """ASGI middleware: requests that come in by `port` get the metrics, or a 404 problem.

    ``request.state.open`` lets them pass the API keys. The port is that of the socket, which no header can change.
    """

    def __init__(self, app: ASGIApp, port: int) -> None:
        self._app = app
        self._port = port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (scope.get("server") or ("", 0))[1] == self._port:
            if scope["path"] != "/metrics":
                problem = Problem(404, "not-found", "Not Found", "This port answers /metrics alone.")
                await problem.response(scope["path"])(scope, receive, send)
                return
            scope.setdefault("state", {})["open"] = True
        await self._app(scope, receive, send)
