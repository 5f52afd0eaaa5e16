"""Every test is a process of its own to accelerate, which lets a process have one precision only."""

from collections.abc import Iterator

import pytest
from accelerate.state import AcceleratorState

from tests.distill.forked import Forked


@pytest.fixture(autouse=True)
def fresh_accelerator() -> Iterator[None]:
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="session")
def forked() -> Iterator[Forked]:
    process = Forked()
    yield process
    process.end()
