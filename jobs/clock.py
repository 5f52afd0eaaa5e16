"""The time of this process."""

import time

_ORIGIN = time.time() - time.monotonic()


def steady_time() -> float:
    """Unix time in seconds that never jumps: the machine's clock when the process began, and the time since."""
    return _ORIGIN + time.monotonic()
