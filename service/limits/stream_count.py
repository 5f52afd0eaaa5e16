"""Bounds the event streams that one client holds open: each costs a reading of its job every two seconds."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import Request

from jobs.metrics import ApiMetrics
from service.problems import Problem


class StreamCount:
    """At most `most` streams for each API key, or without keys for each address."""

    def __init__(self, most: int, metrics: ApiMetrics) -> None:
        self._most = most
        self._metrics = metrics
        self._open: Counter[str] = Counter()

    @contextmanager
    def opened(self, request: Request) -> Iterator[None]:
        """Count a stream while it is open; Problem 429 for one too many."""
        client = request.state.caller or (request.client.host if request.client else "")
        if self._open[client] >= self._most:
            detail = f"At most {self._most} event streams may be open (max_event_streams); close some."
            raise Problem(
                *(429, "too-many-streams", "Too many streams", detail),
                headers={"Retry-After": "5"},
                limit="event_streams",
            )
        self._open[client] += 1
        self._metrics.event_streams.inc()
        try:
            yield
        finally:
            self._metrics.event_streams.dec()
            self._open[client] -= 1
            self._open += Counter()
