"""`python -m tests.worker.gpu.losing_worker`: a worker on a stand-in device, which is lost in the middle of an image.

That is at the first step that begins once it has made four images.
"""

import sys

import pytest

from tests.worker.gpu.stand_in_device import StandInDevice
from tests.worker.step_gate import hindered
from worker.engine.engine import Engine
from worker.main import main

IMAGES = 4


if __name__ == "__main__":
    gpu = StandInDevice()
    gpu.install(pytest.MonkeyPatch())
    Engine.advance = hindered(IMAGES, gpu.lose)  # type: ignore[method-assign]
    sys.exit(main())
