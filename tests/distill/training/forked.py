"""Processes that cost no imports: one that has imported everything forks a child for each command it is given.

`python -m tests.distill.training.forked` reads a command a line, as JSON, and answers with the exit code. It computes
nothing itself: the threads of torch are not there yet when it forks.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from jobs.testing.waiting import SAFETY_NET_S

# Prompts and seeds on a sample grid: enough to see that it is drawn.
SMALL_GRID = 2, 2


class Forked:
    """A process to fork from. Children run on as many threads as this process, or as their environment says."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.distill.training.forked"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(
        self, module: str, arguments: Sequence[object], log: Path, environments: Sequence[Mapping[str, str]] = ({},)
    ) -> list[int]:
        """Call `module`.main with `arguments` in a child for each of `environments`, all at once; their exit codes.

        What they write goes to `log`. A child that a signal ended has its number as a negative code.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = {
            "module": module,
            "arguments": [str(argument) for argument in arguments],
            "environments": [dict(environment) for environment in environments],
            "log": str(log),
        }
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(SAFETY_NET_S)
        except subprocess.TimeoutExpired:
            self._process.kill()


def _child(module: str, arguments: list[str], environment: dict[str, str], log: str) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        with open(log, "a") as file:
            for standard in (1, 2):
                os.dup2(file.fileno(), standard)
        os.environ.update(environment)
        if "OMP_NUM_THREADS" in environment:
            import torch

            torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))
        sys.modules[module].main(*arguments)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _codes(children: list[int]) -> list[int]:
    """Their exit codes; once one has failed, the others, which may wait for it, are ended."""
    codes: dict[int, int] = {}
    while len(codes) < len(children):
        child, status = os.wait()
        codes[child] = os.waitstatus_to_exitcode(status)
        if codes[child] != 0:
            for other in set(children) - codes.keys():
                os.kill(other, signal.SIGKILL)
    return [codes[child] for child in children]


def _serve() -> None:
    import tests.distill.evaluation.evaluate_command
    import tests.distill.training.distill_command
    import tests.distill.training.killed_run  # noqa: F401
    from distill.training import sample_grid

    sample_grid.GRID_PROMPTS, sample_grid.GRID_SAMPLES = SMALL_GRID
    for line in sys.stdin:
        request = json.loads(line)
        named = request["module"], request["arguments"]
        children = [_child(*named, environment, request["log"]) for environment in request["environments"]]
        print(json.dumps(_codes(children)), flush=True)
    os._exit(0)  # nothing to tidy up, and torch takes seconds


if __name__ == "__main__":
    _serve()
