"""One GPU for each of several workers that see all of them, as the containers of a scaled service do."""

import fcntl
import os
from collections.abc import Sequence
from pathlib import Path

from worker.errors import StartFailedError


def take_free_gpu(folder: Path, gpus: Sequence[str]) -> str:
    """Return the first of `gpus` that no other process has taken in `folder`; it is taken until this process, and
    every process that it forks, has ended.

    Raises StartFailedError when each of them is taken, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for gpu in gpus:
            # Open for as long as the process lives: the kernel gives the lock back with the last copy of it.
            file = os.open(folder / f"{gpu.replace('/', '-')}.lock", os.O_RDWR | os.O_CREAT)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(file)
            else:
                return gpu
    except OSError as error:
        raise StartFailedError(f"FOURSTEP_GPU_LOCKS: {error}") from error
    raise StartFailedError(f"FOURSTEP_GPU_LOCKS: each of {len(gpus)} GPUs has a worker already")
