"""What a run survives."""

import os
import signal
from pathlib import Path

import pytest
import torch

from distill import training_loop
from distill.training_loop import CHECKPOINT, RandomStream


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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_step_finish_and_nothing_is_lost(tmp_path: Path, number: signal.Signals) -> None:
    counter = Counter()

    def step(index: int) -> dict[str, float]:
        if index == 3:
            os.kill(os.getpid(), number)
        return counter.step(index)

    handler = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        training_loop.run(tmp_path, {"counter": counter}, step, 10, save_every=100)
    assert signal.getsignal(number) is handler
    again = Counter()
    training_loop.run(tmp_path, {"counter": again}, again.step, 10)
    assert again.steps == 10


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    counter, path = Counter(), tmp_path / CHECKPOINT
    training_loop.save_checkpoint(path, {"counter": counter}, 5)

    class Unwritable(Counter):
        def state_dict(self) -> dict[str, int]:
            raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        training_loop.save_checkpoint(path, {"counter": Unwritable()}, 6)
    assert training_loop.load_checkpoint(path, {"counter": counter}) == 5


def test_a_random_stream_goes_on_where_it_was() -> None:
    stream, restored = RandomStream(1), RandomStream(2)
    torch.rand(3, generator=stream.generator)
    restored.load_state_dict(stream.state_dict())
    assert torch.equal(torch.rand(3, generator=stream.generator), torch.rand(3, generator=restored.generator))
