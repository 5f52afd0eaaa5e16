"""`fourstep up`: Redis, workers and the API, as a process tree that starts, fails and stops as one."""

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import httpx
from redis.asyncio import Redis
from redis.exceptions import RedisError

from jobs.gpus import VISIBLE, visible_gpus
from jobs.queue.connection import open_redis
from jobs.queue.model_registry import ModelRegistry, worker_prefix
from jobs.settings import PREFIX, ApiSettings, WorkerSettings
from jobs.structured_logging import fresh_line
from service.up.child_process import start_child, stop_child
from service.up.embedded_redis import embedded_redis
from service.up.placement import Placement, placements
from service.up.usable_gpus import usable_gpus

# The API and the worker stop side by side, then Redis: all within ten seconds.
CHILD_PATIENCE_S = 7.5
FIRST_RESTART_PAUSE_S = 1.0
LONGEST_RESTART_PAUSE_S = 30.0
STEADY_AFTER_S = 60.0
WORKER_CANNOT_START = 2
READY_POLL_S = 0.1
REDIS_PATIENCE_S = 5.0
LAST_PORT = 65535

log = logging.getLogger(__name__)


class CannotServeError(Exception):
    """The reason why `up` could not start or go on, in one line."""


async def up(api: ApiSettings, worker: WorkerSettings, models: Sequence[str]) -> None:
    """Serve `models` until SIGTERM or SIGINT, then stop all processes; CannotServeError when one cannot run.

    The first model is the default one. Workers are dealt out over the GPUs, unless FOURSTEP_DEVICE names a device.
    Each starts when the one before it is ready.
    """
    gpus = visible_gpus() if worker.device in ("auto", "cuda") else []
    if worker.workers == "auto":
        gpus = await usable_gpus(gpus)
    try:
        placed = placements(models, gpus, worker.workers, worker.metrics_port)
    except ValueError as error:
        raise CannotServeError(str(error)) from error
    default = placed[0].name
    if api.default_model not in (None, default):
        raise CannotServeError(f"{PREFIX}DEFAULT_MODEL is {api.default_model}, but the first model is {default}")
    _refuse_ports(api, worker, placed)
    stopping = asyncio.Event()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signal_number, _stop, stopping)
    async with AsyncExitStack() as stack:
        ends: list[asyncio.Task] = [asyncio.create_task(stopping.wait())]
        redis_url = api.redis_url
        if redis_url is not None:
            await _refuse_silent_redis(redis_url)
        else:
            embedded = await stack.enter_async_context(embedded_redis())
            redis_url = embedded.url
            ends.append(asyncio.create_task(_fail_when_gone(embedded.process, "Redis")))
            joins = f"{PREFIX}REDIS_URL=$(cat {embedded.url_file}) fourstep worker"
            _say(f"to add a worker from another terminal: {joins}")
        _say(f"loading {', '.join(each.name for each in placed)}; Ctrl-C stops everything")
        environment = {**os.environ, f"{PREFIX}REDIS_URL": redis_url}
        ends.append(asyncio.create_task(_keep_api(environment | {f"{PREFIX}DEFAULT_MODEL": default})))
        redis = open_redis(redis_url)
        stack.push_async_callback(redis.aclose)
        may_start, ready = asyncio.Event(), asyncio.Event()
        may_start.set()
        for each in placed:
            own = {f"{PREFIX}MODEL": each.model, f"{PREFIX}METRICS_PORT": str(each.metrics_port)}
            own |= {} if each.gpu is None else {VISIBLE: each.gpu}
            ends.append(asyncio.create_task(_keep_worker(api, redis, each, environment | own, may_start, ready)))
            may_start, ready = ready, asyncio.Event()  # one after the other: loading takes the whole machine
        stack.callback(asyncio.create_task(_say_how_to_call(api, last_ready=may_start)).cancel)
        await _first_of(ends)


def _refuse_ports(api: ApiSettings, worker: WorkerSettings, placed: Sequence[Placement]) -> None:
    _refuse_taken_port(api.host, api.port, "PORT")
    given = f"{PREFIX}METRICS_PORT is {worker.metrics_port}, the first of {len(placed)} workers' ports"
    for port in filter(None, (each.metrics_port for each in placed)):
        if port > LAST_PORT:
            raise CannotServeError(f"{given}: there is no port {port}")
        if port in (api.port, api.api_metrics_port):
            raise CannotServeError(f"{given}: {port} is a port of the API")
        _refuse_taken_port(worker.metrics_host, port, "METRICS_PORT")


def _refuse_taken_port(host: str, port: int, setting: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise CannotServeError(
                f"port {port} of {host} is not free ({error.strerror}); choose another with {PREFIX}{setting}"
            ) from error


async def _refuse_silent_redis(redis_url: str) -> None:
    """Raise CannotServeError when no Redis answers within REDIS_PATIENCE_S: it may be starting beside us."""
    redis, deadline = open_redis(redis_url), asyncio.get_running_loop().time() + REDIS_PATIENCE_S
    try:
        while True:
            try:
                await redis.ping()
                return
            except (RedisError, OSError) as error:
                if asyncio.get_running_loop().time() > deadline:
                    remedy = "start it, or leave the variable unset: then fourstep brings its own"
                    raise CannotServeError(f"{PREFIX}REDIS_URL: no Redis answers there ({error}); {remedy}") from error
                await asyncio.sleep(READY_POLL_S)
    finally:
        await redis.aclose()


def _stop(stopping: asyncio.Event) -> None:
    _say("stopping")
    stopping.set()


@asynccontextmanager
async def _child(command: str, environment: Mapping[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    # -P: do not import from the current folder, where the user may have a worker.py.
    process = await start_child([sys.executable, "-P", "-m", "fourstep", command], environment)
    try:
        yield process
    finally:
        await stop_child(process, CHILD_PATIENCE_S)


async def _fail_when_gone(process: asyncio.subprocess.Process, name: str) -> None:
    raise CannotServeError(f"{name} stopped by itself with code {await process.wait()}")


async def _keep_api(environment: Mapping[str, str]) -> None:
    async with _child("api", environment) as process:
        await _fail_when_gone(process, "the API")


async def _keep_worker(
    api: ApiSettings,
    redis: Redis,
    placed: Placement,
    environment: Mapping[str, str],
    may_start: asyncio.Event,
    ready: asyncio.Event,
) -> None:
    """Run a worker; after it was ready, restart it whenever it dies, after ever longer pauses."""
    await may_start.wait()
    pause_s, where = FIRST_RESTART_PAUSE_S, "" if placed.gpu is None else f" on GPU {placed.gpu}"
    while True:
        began = asyncio.get_running_loop().time()
        async with _child("worker", environment) as process:
            gone = asyncio.create_task(process.wait())
            if not ready.is_set() and await _wait_until_ready(api, redis, placed.name, process.pid, gone):
                _say(f"fourstep is ready at {_url(api)} with {placed.name}{where}")
                ready.set()
            code = await gone
        if code == WORKER_CANNOT_START or not ready.is_set():
            raise CannotServeError(
                f"the worker of {placed.name}{where} could not start (code {code}); the line above that begins "
                "with `fourstep worker:` says why"
            )
        if asyncio.get_running_loop().time() - began > STEADY_AFTER_S:
            pause_s = FIRST_RESTART_PAUSE_S
        about = {"model": placed.name, "gpu": placed.gpu, "code": code, "pause_s": pause_s}
        log.error("the worker died and is started again", extra=about)
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_RESTART_PAUSE_S)


async def _say_how_to_call(api: ApiSettings, last_ready: asyncio.Event) -> None:
    await last_ready.wait()
    key = ' -H "authorization: Bearer KEY"' if api.api_keys else ""
    headers = f"{key} -H 'content-type: application/json' -H 'accept: image/png'"
    body = """-d '{"prompt": "a smiling cat face"}'"""
    _say(f"a first picture: curl {_url(api)}/generate{headers} {body} -o cat.png")


async def _wait_until_ready(
    api: ApiSettings, redis: Redis, model: str, pid: int, worker_gone: asyncio.Task[int]
) -> bool:
    """Return whether the API served `model` and the worker of process `pid` announced itself before it was gone."""
    registry = ModelRegistry(redis, model)
    async with httpx.AsyncClient(trust_env=False) as client:
        while not worker_gone.done():
            with suppress(httpx.TransportError, RedisError):  # the API is still starting
                answer = await client.get(f"{_url(api)}/readyz")
                if answer.is_success and model in answer.json()["models"]:
                    workers = await registry.workers()
                    if any(each.worker_id.startswith(worker_prefix(pid)) for each in workers):
                        return True
            await asyncio.sleep(READY_POLL_S)
    return False


def _say(text: str) -> None:
    print(fresh_line(sys.stdout) + text, flush=True)


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
