"""The entry point of a worker process."""

import asyncio
import os
import sys

from pydantic import ValidationError

from jobs.gpus import VISIBLE, visible_gpus
from jobs.settings import WorkerSettings, explain
from jobs.structured_logging import configure_logging
from worker.device.free_gpu import take_free_gpu
from worker.errors import INSTALL, FolderRefusedError, StartFailedError
from worker.model_folder.source import check_source


def main() -> int:
    """Run a worker until SIGTERM or SIGINT. Returns the exit code: 0, 1 after a crash, 2 when it could not start."""
    try:
        settings = WorkerSettings()
        if settings.redis_url is None:
            raise StartFailedError("FOURSTEP_REDIS_URL is not set; `fourstep up` brings its own Redis")
        configure_logging(settings.log_level)
        # torch and diffusers take the engine's process seconds to import: what is wrong here is said before.
        check_source(settings.model)
        if settings.gpu_locks and settings.device in ("auto", "cuda") and (gpus := visible_gpus()):
            os.environ[VISIBLE] = take_free_gpu(settings.gpu_locks, gpus)
        from worker.process import run

        return asyncio.run(run(settings, settings.redis_url))
    except ValidationError as error:
        reason = explain(error)
    except ModuleNotFoundError as error:
        reason = f"{error}; {INSTALL}"
    except (StartFailedError, FolderRefusedError) as error:
        reason = str(error)
    print(f"fourstep worker: {reason}", file=sys.stderr)
    return 2
