"""`python -m worker.ready` exits with 0 when the worker of this container serves, as its metrics say.

Run every few seconds beside a busy worker, so it imports next to nothing.
"""

import os
import re
import sys
from http.client import HTTPConnection, HTTPException

TIMEOUT_S = 2.0
WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}
ANNOUNCED = re.compile(rb'^fourstep_build_info\{[^}]*\bmodel="[^"]', re.MULTILINE)


def is_ready(host: str, port: int) -> bool:
    """Return whether a worker answers on its metrics port and has announced its warm model."""
    connection = HTTPConnection(WILDCARDS.get(host, host), port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/metrics")
        return ANNOUNCED.search(connection.getresponse().read()) is not None
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def address() -> tuple[str, int]:
    """Return host and port of the worker's metrics, as jobs.settings reads them."""
    return os.environ.get("FOURSTEP_METRICS_HOST") or "127.0.0.1", int(os.environ.get("FOURSTEP_METRICS_PORT") or 8001)


if __name__ == "__main__":
    sys.exit(0 if is_ready(*address()) else 1)
