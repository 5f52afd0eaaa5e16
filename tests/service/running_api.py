"""The API in this process, on a real port."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import uvicorn

from jobs.settings import ApiSettings
from jobs.testing.waiting import SAFETY_NET_S, wait_until
from service.server import configured, sockets


@asynccontextmanager
async def running_api(settings: ApiSettings) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an API that serves `settings` on its port."""
    server = uvicorn.Server(configured(settings, graceful_shutdown_s=1))
    serving = asyncio.create_task(server.serve(sockets(settings)))
    await wait_until(lambda: server.started, pause_s=0.002)
    # Without `verify` it does not read the certificates that it has no use for here.
    base_url = f"http://127.0.0.1:{settings.port}"
    async with httpx.AsyncClient(base_url=base_url, timeout=SAFETY_NET_S, trust_env=False, verify=False) as client:
        try:
            yield client
        finally:
            server.should_exit = True
            await serving
