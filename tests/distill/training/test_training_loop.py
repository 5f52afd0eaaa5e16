"""The training loop is stopped, killed and resumed."""

import json
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from distill.training import training_loop
from distill.training.training_loop import RandomStream


class Counter:
    """The least that can be trained: counts its steps."""

    def __init__(self) -> None:
        self.steps = 0

    def state_dict(self) -> dict[str, int]:
        return {"steps": self.steps}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self.steps = state_dict["steps"]

    def step(self, index: int) -> dict[str, float]:
        assert index == self.steps, "no step is left out or done twice"
        self.steps += 1
        return {}


# A process of its own: a signal that nobody keeps ends it.
SIGNALLED = """
import os, select, sys
from pathlib import Path
from distill.training import training_loop
from tests.distill.training.test_training_loop import Counter

folder, number = Path(sys.argv[1]), int(sys.argv[2])
counter = Counter()

def step(index):
    if index == 3:
        os.kill(os.getpid(), number)
        select.select([sys.stdin], [], [], 120)  # until the line about the signal has been read
    return counter.step(index)

training_loop.run(folder, {"counter": counter}, step, 10, save_every=100)
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_step_finish_and_nothing_is_lost(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-c", SIGNALLED, str(tmp_path), str(int(number))]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as run:
        assert run.stdout is not None
        said = run.stdout.readline()
        _, error = run.communicate("read\n")
    assert "KeyboardInterrupt: stopped after step 4" in error, (run.returncode, error)
    assert said == f"{number.name}: the run stops after this update, with a checkpoint\n"
    again = Counter()
    training_loop.run(tmp_path, {"counter": again}, again.step, 10)
    assert again.steps == 10


def test_handlers_of_signals_come_back(tmp_path: Path) -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    training_loop.run(tmp_path, {}, lambda index: {}, 1)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_a_random_stream_goes_on_where_it_was() -> None:
    stream, restored = RandomStream(1), RandomStream(2)
    torch.rand(3, generator=stream.generator)
    restored.load_state_dict(stream.state_dict())
    assert torch.equal(torch.rand(3, generator=stream.generator), torch.rand(3, generator=restored.generator))


def test_a_resumed_log_is_that_of_a_run_never_stopped(tmp_path: Path) -> None:
    """Drop what a killed run had logged beyond its checkpoint, and finish the means that it had begun."""
    for name in ("whole", "killed"):
        killed = name == "killed"

        def step(index: int, killed: bool = killed) -> dict[str, float]:
            if killed and index == 8:
                raise RuntimeError("killed")
            return {"index": float(index)}

        with pytest.raises(RuntimeError) if killed else nullcontext():
            training_loop.run(tmp_path / name, {}, step, 12, save_every=5, log_every=4)
    assert '"step": 8' in (tmp_path / "killed" / "log.jsonl").read_text()
    training_loop.run(tmp_path / "killed", {}, lambda index: {"index": float(index)}, 12, save_every=5, log_every=4)
    logs = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("whole", "killed")]
    whole, resumed = ([(line["step"], line["index"]) for line in map(json.loads, log)] for log in logs)
    assert resumed == whole == [(4, 1.5), (8, 5.5), (12, 9.5)]
