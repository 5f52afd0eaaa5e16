"""An engine in this process behind a real connection, as a worker has it in another."""

import multiprocessing
import threading

from jobs.models import ModelCard
from worker.engine.engine import Engine
from worker.engine_process.client import EngineClient
from worker.engine_process.device_thread import DeviceThread
from worker.engine_process.server import EngineServer


def serve_here(engine: Engine, card: ModelCard, device: DeviceThread) -> EngineClient:
    """Return a client of `engine`, which runs on `device`, a thread not started yet, until the client is closed."""
    here, there = multiprocessing.Pipe()

    def serve() -> None:
        with there:
            EngineServer(there, device).serve(lambda: (engine, card))
        device.stop()

    device.start()
    threading.Thread(target=serve, name="engine-requests", daemon=True).start()
    client = EngineClient(here)
    client.start()
    client.ready.result()
    return client
