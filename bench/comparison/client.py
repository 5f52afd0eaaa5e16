"""The one client of all systems: calls that wait for their pictures, in closed and open loop."""

import asyncio
import hashlib
import io
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image

from bench.comparison.figures import Answer
from bench.comparison.systems import System
from bench.comparison.trace import Call, singles
from bench.service.http_load import KEPT_ALIVE_S, Connection

PATIENCE_S = 60.0

Key = tuple[str, int]
"""Prompt and seed of one picture."""


@dataclass
class Client:
    """Sends calls to `system` on `port`; `pictures` keeps the bytes of every picture that came, in order."""

    system: System
    port: int
    mode: str = "fast"
    patience_s: float = PATIENCE_S
    pictures: dict[Key, list[bytes]] = field(default_factory=dict)
    _idle: list[Connection] = field(default_factory=list)

    async def send(self, call: Call, due: float) -> Answer:
        """All pictures of `call`, whose latency counts from `due` on the clock of time.perf_counter."""
        requests = self.system.requests(call, self.mode)
        answers = await asyncio.gather(*(self._exchange(request) for request in requests))
        seconds = time.perf_counter() - due
        status = max(status for status, _ in answers) if all(status for status, _ in answers) else 0
        if status == 200:
            made = [picture for _, body in answers for picture in self.system.pictures(json.loads(body))]
            assert [seed for seed, _ in made] == [call.seed + index for index in range(call.images)], call
            for seed, picture in made:
                self.pictures.setdefault((call.prompt, seed), []).append(picture)
        return Answer(call.images, status, seconds)

    async def _exchange(self, request: bytes) -> tuple[int, bytes]:
        """Status and body; status 0 when the connection broke or nothing came for `patience_s`."""
        try:
            async with asyncio.timeout(self.patience_s):
                connection = await self._connection()
                status, head, body = await connection.exchange(request)
        except (OSError, EOFError, TimeoutError):
            return 0, b""
        if b"connection: close" in head:
            connection.close()
        else:
            self._idle.append(connection)
        return status, body

    async def _connection(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if time.perf_counter() - connection.used < KEPT_ALIVE_S:
                return connection
            connection.close()
        return await Connection.open(self.port)

    async def together(self, calls: Sequence[Call]) -> list[Answer]:
        """All at once."""
        now = time.perf_counter()
        return list(await asyncio.gather(*(self.send(call, now) for call in calls)))

    async def closed_loop(self, calls: Sequence[Call], concurrency: int) -> tuple[list[Answer], list[float]]:
        """`concurrency` callers, each with its next call as soon as it is answered; also the time of each answer."""
        left, answers, finished = iter(calls), list[Answer](), list[float]()
        began = time.perf_counter()

        async def caller() -> None:
            for call in left:
                answers.append(await self.send(call, time.perf_counter()))
                finished.append(time.perf_counter() - began)

        await asyncio.gather(*(caller() for _ in range(concurrency)))
        return answers, finished

    async def replay(self, calls: Sequence[Call], images_per_s: float, alone_s: float) -> list[Answer]:
        """The trace at `images_per_s`, whether or not earlier calls are answered; deadlines in units of `alone_s`."""
        began, pending = time.perf_counter(), []
        for call in calls:
            due = began + call.at / images_per_s
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            scaled = Call(call.at, call.prompt, call.seed, call.images, call.deadline * alone_s)
            pending.append(asyncio.create_task(self.send(scaled, due)))
        return list(await asyncio.gather(*pending))


def draws(system: System, port: int) -> bool:
    """Send a first call; True when it is answered with a picture."""
    return asyncio.run(Client(system, port).together(singles(1, -1)))[0].ok


def pixels_sha256(picture: bytes) -> str:
    """Hash of the decoded pixels: files may differ in compression and metadata."""
    return hashlib.sha256(Image.open(io.BytesIO(picture)).convert("RGB").tobytes()).hexdigest()
