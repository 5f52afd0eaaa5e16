"""A TCP proxy between the service and its Redis, which can delay and cut."""

import asyncio
from contextlib import suppress

CHUNK = 65536


class Proxy:
    """Forwards 127.0.0.1:`port` to 127.0.0.1:`target`; every chunk waits `delay_s` seconds first."""

    def __init__(self, port: int, target: int) -> None:
        self.port = port
        self.delay_s = 0.0
        self._target = target
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()

    def cut(self) -> int:
        """Break all connections, with whatever is under way in them; returns how many sockets."""
        for writer in self._writers:
            writer.transport.abort()
        return len(self._writers)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, back}
        try:
            await asyncio.gather(self._forward(reader, back), self._forward(there, writer))
        finally:
            self._writers -= {writer, back}

    async def _forward(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while chunk := await source.read(CHUNK):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                sink.write(chunk)
                await sink.drain()
        sink.close()
