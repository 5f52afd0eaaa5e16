"""Counts, times and logs every request, names it by ``X-Request-Id``, and sets ``X-Content-Type-Options: nosniff``."""

import logging
import time
import uuid

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jobs.metrics import ApiMetrics

# Requested by machines every few seconds: logged only at debug level.
PROBES = ("/healthz", "/readyz", "/metrics")
OUTCOMES = {401: "unauthorized", 403: "unauthorized", 429: "shed", 499: "cancelled", 504: "expired"}

log = logging.getLogger(__name__)


class RequestMetrics:
    """ASGI middleware. The endpoint is the route's template, so that the label has few values.

    A route may set ``request.state.outcome`` where it does not follow from the status, and ``request.state.job_id`` for
    the log.
    """

    def __init__(self, app: ASGIApp, metrics: ApiMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.monotonic()
        status, request_id = 500, uuid.uuid4().hex

        async def send_noting_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Content-Type-Options"], headers["X-Request-Id"] = "nosniff", request_id
            await send(message)

        try:
            await self._app(scope, receive, send_noting_status)
        finally:
            self._record(scope, status, time.monotonic() - began, request_id)

    def _record(self, scope: Scope, status: int, duration_s: float, request_id: str) -> None:
        endpoint = getattr(scope.get("route"), "path", "unmatched")
        state = scope.get("state", {})
        outcome = state.get("outcome") or _outcome(status)
        self._metrics.requests.labels(endpoint=endpoint, outcome=outcome).inc()
        self._metrics.request_duration.labels(endpoint=endpoint).observe(duration_s)
        about = {"method": scope["method"], "endpoint": endpoint, "status": status, "seconds": round(duration_s, 4)}
        about["request_id"] = request_id
        job = {"job_id": state["job_id"]} if "job_id" in state else {}
        log.log(logging.DEBUG if endpoint in PROBES else logging.INFO, "request", extra=about | job)


def _outcome(status: int) -> str:
    if status < 400:
        return "ok"
    return OUTCOMES.get(status, "invalid" if status < 500 else "error")
