"""`python -m tests.worker.gpu.losing_worker`: a worker on a stand-in device, which is lost in the middle of an image.

That is at the first step that begins once it has made four images.
"""

import sys

import pytest

from tests.worker.gpu.stand_in_device import StandInDevice
from tests.worker.step_gate import Made
from worker.engine.decoded import Advance
from worker.engine.engine import Engine
from worker.main import main

IMAGES = 4

advance = Engine.advance
gpu = StandInDevice()
made = 0


def losing_step(engine: Engine) -> Advance:
    global made
    if made >= IMAGES and engine._begun():
        gpu.lose()
    outcomes = advance(engine).outcomes()
    made += len(outcomes)
    return Made(outcomes)


if __name__ == "__main__":
    gpu.install(pytest.MonkeyPatch())
    Engine.advance = losing_step  # type: ignore[method-assign]
    sys.exit(main())
