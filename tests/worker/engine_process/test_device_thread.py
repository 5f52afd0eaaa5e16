"""The thread of the device: which calls run beside a step."""

import threading
import time
from types import SimpleNamespace
from typing import Any

from jobs.testing.waiting import SAFETY_NET_S
from worker.engine_process.device_thread import DeviceThread


def test_a_call_that_may_runs_beside_a_step_and_others_when_it_has_ended() -> None:
    events: list[str] = []
    begun = threading.Event()
    engine: Any = SimpleNamespace(busy=True)

    def advance() -> None:
        events.append("step")
        begun.set()
        while engine.await_task(time.perf_counter() + SAFETY_NET_S):
            events.append("planned anew")
        events.append("end of the step")
        engine.busy = False

    engine.advance = advance
    device = DeviceThread()
    device.start()
    device.serve(engine, lambda advanced: None)
    assert begun.wait(SAFETY_NET_S)
    for name in ("task", "withdrawal"):
        device.call_soon(events.append, name).result(SAFETY_NET_S)
    device.call(events.append, "measurement").result(SAFETY_NET_S)
    device.stop()
    device.join()
    assert events == [
        "step",
        *("task", "planned anew"),
        *("withdrawal", "planned anew"),
        *("end of the step", "measurement"),
    ]
