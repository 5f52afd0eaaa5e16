"""Load on an HTTP server: HTTP/1.1 over plain sockets, so that the client costs next to nothing."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from bench.quantiles import quantile

KEPT_ALIVE_S = 3.0


@dataclass
class Answers:
    """Latencies in seconds by status."""

    latencies: dict[int, list[float]] = field(default_factory=dict)
    without_retry_after: int = 0
    seconds: float = 0.0

    def add(self, status: int, seconds: float, retry_after: bool) -> None:
        self.latencies.setdefault(status, []).append(seconds)
        self.without_retry_after += status == 429 and not retry_after

    def rate(self, status: int = 200) -> float:
        return len(self.latencies.get(status, [])) / self.seconds

    def quantile(self, share: float, status: int = 200) -> float:
        """Seconds within which `share` of the answers of `status` came; 0 without any."""
        latencies = self.latencies.get(status)
        return quantile(latencies, share) if latencies else 0.0

    @property
    def counts(self) -> Counter[int]:
        return Counter({status: len(latencies) for status, latencies in self.latencies.items()})


def post(path: str, body: bytes) -> bytes:
    """The bytes of a JSON request."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Connection:
    """One keep-alive connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.used = time.perf_counter()

    @classmethod
    async def open(cls, port: int) -> "Connection":
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=2**22))

    async def exchange(self, request: bytes) -> tuple[int, bytes, bytes]:
        """Status, head in small letters and body of the answer."""
        self._writer.write(request)
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        body = await self._body(head)
        self.used = time.perf_counter()
        return int(head[9:12]), head, body

    async def _body(self, head: bytes) -> bytes:
        if b"transfer-encoding: chunked" in head:
            parts = []
            while size := int(await self._reader.readuntil(b"\r\n"), 16):
                parts.append(await self._reader.readexactly(size))
                await self._reader.readexactly(2)
            await self._reader.readexactly(2)
            return b"".join(parts)
        length = head.index(b"content-length:") + len(b"content-length:")
        return await self._reader.readexactly(int(head[length : head.index(b"\r", length)]))

    def close(self) -> None:
        self._writer.close()


async def closed_loop(port: int, connections: int, requests: int, request: Callable[[], bytes]) -> Answers:
    """`requests` over `connections`, each with its next request as soon as it is answered."""
    answers, left = Answers(), iter(range(requests))
    opened = [await Connection.open(port) for _ in range(connections)]

    async def send_on(connection: Connection) -> None:
        for _ in left:
            await _timed(connection, request(), time.perf_counter(), answers)

    began = time.perf_counter()
    await asyncio.gather(*(send_on(connection) for connection in opened))
    answers.seconds = time.perf_counter() - began
    for connection in opened:
        connection.close()
    return answers


async def open_loop(port: int, rate: float, seconds: float, request: Callable[[], bytes], seed: int = 0) -> Answers:
    """Poisson arrivals of `rate` requests a second, whether or not earlier ones are answered.

    Latencies count from the time at which a request was due, so that a slow server cannot hide its queue.
    """
    answers, idle, arrivals = Answers(), list[Connection](), random.Random(seed)

    async def send(due: float) -> None:
        # A server closes connections that it has not heard of for some seconds; the latest used come first.
        if idle and time.perf_counter() - idle[-1].used > KEPT_ALIVE_S:
            for connection in idle:
                connection.close()
            idle.clear()
        connection = idle.pop() if idle else await Connection.open(port)
        await _timed(connection, request(), due, answers)
        idle.append(connection)

    began = due = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        while (due := due + arrivals.expovariate(rate)) < began + seconds:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            group.create_task(send(due))
    answers.seconds = time.perf_counter() - began
    for connection in idle:
        connection.close()
    return answers


async def _timed(connection: Connection, request: bytes, since: float, answers: Answers) -> None:
    status, head, _ = await connection.exchange(request)
    answers.add(status, time.perf_counter() - since, b"retry-after:" in head)
