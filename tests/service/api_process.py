"""The API as a process of its own."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from jobs.testing.waiting import SAFETY_NET_S, wait_until
from service.server import GRACEFUL_SHUTDOWN_S


@asynccontextmanager
async def api_process(
    redis_url: str, port: int, graceful_shutdown_s: int = GRACEFUL_SHUTDOWN_S, **variables: str
) -> AsyncIterator[tuple[asyncio.subprocess.Process, httpx.AsyncClient]]:
    """Start the API and yield its process and a client; its log is the process's standard error.

    It gives calls `graceful_shutdown_s` seconds to finish when it is told to stop.
    """
    environment = os.environ | {"FOURSTEP_REDIS_URL": redis_url, "FOURSTEP_PORT": str(port)} | variables
    code = "from jobs.settings import ApiSettings; from service.server import serve; "
    code += f"serve(ApiSettings(), {graceful_shutdown_s})"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, env=environment, stderr=asyncio.subprocess.PIPE
    )
    try:
        base_url = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=base_url, timeout=SAFETY_NET_S, trust_env=False) as client:
            await wait_until(lambda: _alive(client))
            yield process, client
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _alive(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/healthz")).status_code == 200
    except httpx.TransportError:
        return False
