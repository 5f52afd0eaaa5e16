"""Child processes that cannot outlive their parent."""

import asyncio
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

PR_SET_PDEATHSIG = 1


async def start_child(
    command: Sequence[str],
    environment: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
    quiet: bool = False,
) -> asyncio.subprocess.Process:
    """Start `command` in a session of its own, so that Ctrl-C reaches only the parent, which stops it in order.

    `stdin` is its standard input; `quiet` discards its standard output.
    On Linux the kernel kills the child when the parent dies by any cause. Elsewhere it survives a SIGKILLed parent.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL if quiet else None,
        start_new_session=True,
        preexec_fn=_die_with_parent(),
    )
    if stdin is not None and process.stdin is not None:
        with suppress(BrokenPipeError, ConnectionResetError):
            process.stdin.write(stdin)
            await process.stdin.drain()
        process.stdin.close()
    return process


async def stop_child(process: asyncio.subprocess.Process, patience_s: float) -> None:
    """Send SIGTERM, and SIGKILL after `patience_s` seconds; returns when the child is gone."""
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), patience_s)
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _die_with_parent() -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None, use_errno=True)  # loaded here: little is safe between fork and exec
    parent = os.getpid()

    def ask_kernel() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)

    return ask_kernel
