"""`python -m tests.worker.device.gpu_taker FOLDER GPU...` takes a GPU, prints it or "none", and waits for its input."""

import sys
from pathlib import Path

from worker.device.free_gpu import take_free_gpu
from worker.errors import StartFailedError

if __name__ == "__main__":
    try:
        print(take_free_gpu(Path(sys.argv[1]), sys.argv[2:]), flush=True)
    except StartFailedError:
        print("none", flush=True)
    sys.stdin.read()
