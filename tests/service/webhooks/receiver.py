"""A receiver of webhooks that answers as it is told to."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

HANG = 0
"""In place of a status: the receiver takes the request and never answers."""


@dataclass(frozen=True)
class Received:
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """`answers` are the statuses of its first answers; all later ones are 204. Redirections lead to ``/elsewhere``."""

    port: int
    answers: list[int] = field(default_factory=list)
    received: list[Received] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?token=1"

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        lines = [line.partition(": ") for line in head[1:] if line]
        headers = {name.lower(): value for name, _, value in lines}
        body = await reader.readexactly(int(headers["content-length"]))
        self.received.append(Received(head[0].split()[1], headers, body))
        status = self.answers.pop(0) if self.answers else 204
        if status == HANG:
            await reader.read()  # until the sender closes the connection
        else:
            location = f"Location: http://127.0.0.1:{self.port}/elsewhere\r\n" if 300 <= status < 400 else ""
            writer.write(f"HTTP/1.1 {status} Said\r\n{location}Content-Length: 0\r\n\r\n".encode())
        writer.close()


@asynccontextmanager
async def receiving(port: int, *answers: int) -> AsyncIterator[Receiver]:
    receiver = Receiver(port, list(answers))
    async with await asyncio.start_server(receiver.answer, "127.0.0.1", port):
        yield receiver
