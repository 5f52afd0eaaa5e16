"""`python -m tests.distill.killed_run CONFIG RUN WHERE`: begin a run and die by SIGKILL in the middle of it.

WHERE is "student", "critic" or "checkpoint".
"""

import os
import signal
import sys
from pathlib import Path

from distill import checkpoints, dp_dmd, runs

CALLS = {"student": 4, "critic": 7, "checkpoint": 14}
"""The call of the watched function that does not return: all in the run's fourth cycle or second checkpoint."""


def main(config: Path, run: Path, where: str) -> None:
    module, name = {
        "student": (dp_dmd.losses, "dmd_loss"),
        "critic": (dp_dmd.losses, "critic_loss"),
        "checkpoint": (checkpoints, "save_file"),
    }[where]
    whole = getattr(module, name)
    calls = []

    def fatal(*arguments, **named):
        calls.append(name)
        if len(calls) == CALLS[where]:
            os.kill(os.getpid(), signal.SIGKILL)
        return whole(*arguments, **named)

    setattr(module, name, fatal)
    runs.start(config, run, None)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
