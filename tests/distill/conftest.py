"""Every test is a process of its own to accelerate, which lets a process have one precision only."""

from collections.abc import Iterator

import pytest
from accelerate.state import AcceleratorState

from distill.training import sample_grid
from tests.distill.training.forked import SMALL_GRID, Forked


@pytest.fixture(autouse=True)
def fresh_accelerator() -> Iterator[None]:
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(autouse=True)
def _small_grids(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sample grids of four pictures instead of 64: most tests train, and few look at a grid."""
    for name, count in zip(("GRID_PROMPTS", "GRID_SAMPLES"), SMALL_GRID, strict=True):
        monkeypatch.setattr(sample_grid, name, count)


@pytest.fixture(scope="session")
def forked() -> Iterator[Forked]:
    process = Forked()
    yield process
    process.end()
