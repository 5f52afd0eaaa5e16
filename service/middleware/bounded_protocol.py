"""Bounds on what a connection may take: its head, its body's time, unread answers, and how many there are.

The HTTP parser and the server have none of them.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from jobs.metrics import ApiMetrics
from jobs.settings import ApiSettings

# Checked after each read from the socket, so a head may exceed it by one read.
MAX_HEAD_BYTES = 64 * 1024
HEAD_TIMEOUT_S = 15.0
TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


@dataclass
class Connections:
    """The connections of one server: what each may take, and how many each address has open."""

    settings: ApiSettings
    metrics: ApiMetrics
    open: Counter[str] = field(default_factory=Counter)


class ClientsClock(FlowControl):
    """uvicorn's flow control, which stops the client's clock while the application reads no further.

    So a call that waits for room is not taken for one that sends too slowly.
    """

    def __init__(self, protocol: "BoundedProtocol") -> None:
        super().__init__(protocol.transport)
        self._protocol = protocol

    def pause_reading(self) -> None:
        super().pause_reading()
        self._protocol.hold_timer()

    def resume_reading(self) -> None:
        super().resume_reading()
        self._protocol.release_timer()


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which closes connections that send or read too slowly, or are too many for one address."""

    bounds: Connections
    _address = ""
    _in_head = False
    _head_bytes = 0
    _reading: asyncio.TimerHandle | None = None
    _held_s: float | None = None
    _writing: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = ClientsClock(self)
        peer = transport.get_extra_info("peername")
        self._address = peer[0] if isinstance(peer, tuple) else ""
        self.bounds.open[self._address] += 1
        if self.bounds.open[self._address] > self.bounds.settings.max_connections:
            self.bounds.metrics.connections_refused.inc()
            transport.abort()
            return
        self._in_head = True  # the time limit holds for clients that send nothing, too
        self._watch_reading(HEAD_TIMEOUT_S)

    def connection_lost(self, exc: Exception | None) -> None:
        self.bounds.open[self._address] -= 1
        if not self.bounds.open[self._address]:
            del self.bounds.open[self._address]
        self._unwatch_reading()
        self._unwatch_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head:
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(TOO_LARGE)
            self._watch_reading(HEAD_TIMEOUT_S)

    def on_message_begin(self) -> None:
        self._in_head = True
        self._head_bytes = self._head_bytes or 1  # it has begun, though within a read of which the rest was no head
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head, self._head_bytes = False, 0
        self._unwatch_reading()
        self._watch_reading(self.bounds.settings.body_timeout_s)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._unwatch_reading()
        super().on_message_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._writing is None:
            self._writing = self.loop.call_later(self.bounds.settings.answer_timeout_s, self._stop_writing)

    def resume_writing(self) -> None:
        self._unwatch_writing()
        super().resume_writing()

    def hold_timer(self) -> None:
        """Stop the clock of a head or body that is being read; it keeps the time that it has left."""
        if self._reading is not None:
            left_s = self._reading.when() - self.loop.time()
            self._unwatch_reading()
            self._held_s = left_s

    def release_timer(self) -> None:
        """Let that clock go on."""
        left_s, self._held_s = self._held_s, None
        if left_s is not None:
            self._watch_reading(left_s)

    def _watch_reading(self, timeout_s: float) -> None:
        if self.flow.read_paused:
            self._held_s = timeout_s if self._held_s is None else self._held_s
        elif self._reading is None:
            self._reading = self.loop.call_later(timeout_s, self._refuse, TOO_SLOW)

    def _unwatch_reading(self) -> None:
        self._held_s = None
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def _unwatch_writing(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None

    def _stop_writing(self) -> None:
        self.bounds.metrics.refusals.labels("answer_time").inc()
        self.transport.abort()

    def _refuse(self, answer: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._head_bytes or not self._in_head:  # browsers open connections that they do not use
            self.bounds.metrics.refusals.labels("head" if self._in_head else "body_time").inc()
        answering = not self._in_head and self.cycle is not None and self.cycle.response_started
        if not answering:
            self.transport.write(answer)
        self.transport.close()


def bounded_protocol(settings: ApiSettings, metrics: ApiMetrics) -> type[BoundedProtocol]:
    """The protocol of one server."""
    return type("Protocol", (BoundedProtocol,), {"bounds": Connections(settings, metrics)})
