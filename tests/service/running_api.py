"""The API in this process, on a real port."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import httpx
import uvicorn

from jobs.settings import ApiSettings
from jobs.testing.waiting import SAFETY_NET_S, wait_until
from service.server import configured


class PromptServer(uvicorn.Server):
    """uvicorn without its pauses of a tenth of a second at the end, which add up over hundreds of tests."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.stopping = asyncio.Event()

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self.stopping.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        with suppress(AssertionError):
            await wait_until(self._idle, timeout_s=1, pause_s=0.002)
        for task in self.server_state.tasks:
            task.cancel()
        await self.lifespan.shutdown()

    def _idle(self) -> bool:
        return not (self.server_state.connections or self.server_state.tasks)


@asynccontextmanager
async def running_api(settings: ApiSettings) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an API that serves `settings` on its port."""
    server = PromptServer(configured(settings))
    serving = asyncio.create_task(server.serve())
    await wait_until(lambda: server.started, pause_s=0.002)
    # Without `verify` it does not read the certificates that it has no use for here.
    base_url = f"http://127.0.0.1:{settings.port}"
    async with httpx.AsyncClient(base_url=base_url, timeout=SAFETY_NET_S, trust_env=False, verify=False) as client:
        try:
            yield client
        finally:
            server.stopping.set()
            await serving
