"""`python -m tests.worker.held_worker`: a worker in the middle of an image, however long the test takes to stop it.

Its steps are held back once it has made four images and begun more, until it is about to hand back what has not begun.
It gives what runs then as long as it takes.
"""

import sys
import threading
from typing import Any

from tests.worker.step_gate import hindered
from worker import process
from worker.engine.engine import Engine
from worker.engine_process.device_thread import DeviceThread
from worker.main import main

IMAGES = 4

call_soon = DeviceThread.call_soon
stopping = threading.Event()


def watched_call(device: DeviceThread, function: Any, *arguments: Any) -> Any:
    answer = call_soon(device, function, *arguments)
    if function.__name__ == "withdraw_unstarted":
        stopping.set()
    return answer


if __name__ == "__main__":
    Engine.advance, DeviceThread.call_soon = hindered(IMAGES, stopping.wait), watched_call  # type: ignore[method-assign, assignment]
    process.SHUTDOWN_S = 3600
    sys.exit(main())
