"""`fourstep up`: Redis, one worker and the API as one process tree that starts, fails and stops as one."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
import structlog

from jobs.settings import PREFIX, ApiSettings, WorkerSettings
from service.child_process import start_child, stop_child
from service.embedded_redis import embedded_redis

# The API and the worker stop side by side, then Redis: all within ten seconds.
CHILD_PATIENCE_S = 7.5
FIRST_RESTART_PAUSE_S = 1.0
LONGEST_RESTART_PAUSE_S = 30.0
STEADY_AFTER_S = 60.0
WORKER_CANNOT_START = 2
READY_POLL_S = 0.1

log = structlog.get_logger(__name__)


class CannotServe(Exception):
    """Why `up` could not start or go on, in one line."""


async def up(api: ApiSettings, worker: WorkerSettings) -> None:
    """Serve until SIGTERM or SIGINT, then leave no process behind; CannotServe when a part cannot run."""
    _refuse_taken_port(api.host, api.port, "PORT")
    if worker.metrics_port:
        _refuse_taken_port("0.0.0.0", worker.metrics_port, "METRICS_PORT")
    stopping = asyncio.Event()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signal_number, stopping.set)
    async with AsyncExitStack() as stack:
        ends: list[asyncio.Task] = [asyncio.create_task(stopping.wait())]
        redis_url = api.redis_url
        if redis_url is None:
            redis = await stack.enter_async_context(embedded_redis())
            redis_url = redis.url
            ends.append(asyncio.create_task(_fail_when_gone(redis.process, "Redis")))
        environment = {**os.environ, f"{PREFIX}REDIS_URL": redis_url}
        ends.append(asyncio.create_task(_keep_api(environment)))
        ends.append(asyncio.create_task(_keep_worker(api, environment)))
        await _first_of(ends)


def _refuse_taken_port(host: str, port: int, setting: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise CannotServe(
                f"port {port} of {host} is not free ({error.strerror}); choose another with {PREFIX}{setting}"
            ) from error


@asynccontextmanager
async def _child(module: str, environment: Mapping[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await start_child([sys.executable, "-m", module], environment)
    try:
        yield process
    finally:
        await stop_child(process, CHILD_PATIENCE_S)


async def _fail_when_gone(process: asyncio.subprocess.Process, name: str) -> None:
    raise CannotServe(f"{name} stopped by itself with code {await process.wait()}")


async def _keep_api(environment: Mapping[str, str]) -> None:
    async with _child("service", environment) as process:
        await _fail_when_gone(process, "the API")


async def _keep_worker(api: ApiSettings, environment: Mapping[str, str]) -> None:
    """Run the worker; once it has been ready, start it again whenever it dies, ever more slowly."""
    pause_s, been_ready = FIRST_RESTART_PAUSE_S, False
    while True:
        began = asyncio.get_running_loop().time()
        async with _child("worker", environment) as process:
            gone = asyncio.create_task(process.wait())
            if not been_ready:
                been_ready = await _wait_until_ready(api, gone)
            code = await gone
        if code == WORKER_CANNOT_START or not been_ready:
            raise CannotServe(f"the worker could not start (code {code}); its last line above says why")
        if asyncio.get_running_loop().time() - began > STEADY_AFTER_S:
            pause_s = FIRST_RESTART_PAUSE_S
        log.error("the worker died and is started again", code=code, pause_s=pause_s)
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_RESTART_PAUSE_S)


async def _wait_until_ready(api: ApiSettings, worker_gone: asyncio.Task[int]) -> bool:
    """Whether the API became ready before the worker was gone."""
    url = _url(api)
    async with httpx.AsyncClient(trust_env=False) as client:
        while not worker_gone.done():
            try:
                if (await client.get(f"{url}/readyz")).is_success:
                    print(f"fourstep is ready at {url}", flush=True)
                    return True
            except httpx.TransportError:
                pass  # the API is still starting
            await asyncio.sleep(READY_POLL_S)
    return False


def _url(api: ApiSettings) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(api.host, api.host)
    return f"http://[{host}]:{api.port}" if ":" in host else f"http://{host}:{api.port}"


async def _first_of(ends: list[asyncio.Task]) -> None:
    """Wait until one of `ends` is done, stop the others, and raise what it raised."""
    done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    for end in ends:
        end.cancel()
    await asyncio.gather(*ends, return_exceptions=True)
    for end in done:
        end.result()
