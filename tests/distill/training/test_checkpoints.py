"""A checkpoint is whole or not there."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from distill.training import checkpoints


class Held:
    """A state that is given."""

    def __init__(self, state: dict[Any, Any]) -> None:
        self.state = state

    def state_dict(self) -> dict[Any, Any]:
        return self.state

    def load_state_dict(self, state_dict: dict[Any, Any]) -> None:
        self.state = state_dict


def test_every_kind_of_state_comes_back(tmp_path: Path) -> None:
    shared = torch.randn(3)
    state = {
        "tied": [shared, shared],
        0: {"step": torch.tensor(3.0), "betas": (0.9, 0.999), "none": None, "empty": {}},
        "bfloat16": torch.randn(4, 2, dtype=torch.bfloat16).t(),
        "exact": 0.1 + 0.2,
    }
    checkpoints.save(tmp_path, {"held": Held(state)}, 7)
    held = Held({})
    assert checkpoints.load(tmp_path, {"held": held}) == 7
    assert held.state.keys() == state.keys()
    assert all(torch.equal(part, shared) for part in held.state["tied"])
    assert torch.equal(held.state["bfloat16"], state["bfloat16"])
    assert torch.equal(held.state[0].pop("step"), state[0].pop("step"))
    assert (held.state[0], held.state["exact"]) == (state[0], state["exact"])


def test_a_trained_optimizer_comes_back(tmp_path: Path) -> None:
    def trained(steps: int) -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = nn.Linear(4, 4)
        optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
        train(model, optimizer, steps)
        return model, optimizer

    def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
        for _ in range(steps):
            model(torch.ones(4)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()

    model, optimizer = trained(3)
    checkpoints.save(tmp_path, {"model": model, "optimizer": optimizer}, 3)
    model, optimizer = trained(0)
    checkpoints.load(tmp_path, {"model": model, "optimizer": optimizer})
    train(model, optimizer, 2)
    assert torch.equal(model.weight, trained(5)[0].weight)


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    for done in (1, 2, 3, 12):
        checkpoints.save(tmp_path, {"held": Held({"done": done})}, done)
    assert checkpoints.steps_of(tmp_path) == [3, 12]
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-000003", "step-000012"]


@pytest.mark.parametrize("full_at", [1, 2])
def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full_at: int) -> None:
    """The disk may be full at the first file or at a later one."""
    checkpoints.save(tmp_path, {"one": Held({"done": 5}), "two": Held({})}, 5)
    writes = []
    save_file = checkpoints.save_file

    def full(tensors: dict[str, torch.Tensor], path: Path) -> None:
        writes.append(path)
        if len(writes) == full_at:
            raise OSError("no space left on device")
        save_file(tensors, path)

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(OSError, match="no space"):
        checkpoints.save(tmp_path, {"one": Held({"done": 6}), "two": Held({})}, 6)
    held = Held({})
    assert checkpoints.load(tmp_path, {"one": held}) == 5
    assert held.state == {"done": 5}
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000005"]


# In a process of its own: the limit is one of the process, and holds for whatever else it has open.
FILES_OF_100_KB = """
import resource, sys, torch
from pathlib import Path
from distill.training import checkpoints
from tests.distill.training.test_checkpoints import Held

resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
checkpoints.save(Path(sys.argv[1]), {"held": Held({"done": torch.zeros(100_000)})}, 6)
"""


@pytest.mark.slow
def test_a_file_that_the_system_does_not_take_loses_nothing(tmp_path: Path) -> None:
    checkpoints.save(tmp_path, {"held": Held({"done": torch.tensor(5)})}, 5)
    run = subprocess.run([sys.executable, "-c", FILES_OF_100_KB, tmp_path], capture_output=True, text=True)
    assert run.returncode == 1
    assert re.search(r"OSError: .*step 6: held cannot be written: .*File too large", run.stderr), run.stderr
    held = Held({})
    assert checkpoints.load(tmp_path, {"held": held}) == 5
    assert held.state["done"] == 5
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000005"]


def test_what_a_kill_left_half_written_does_not_count(tmp_path: Path) -> None:
    checkpoints.save(tmp_path, {"held": Held({})}, 5)
    (tmp_path / "checkpoints" / "partial-000006").mkdir()
    (tmp_path / "checkpoints" / "step-000007").mkdir()
    assert checkpoints.load(tmp_path, {"held": Held({})}) == 5


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    checkpoints.save(tmp_path, {}, 5, {"batch": 2, "seed": 0})
    assert checkpoints.load(tmp_path, {}, {"batch": 2, "seed": 0, "new": 1}) == 5
    with pytest.raises(checkpoints.OtherSettingsError, match="batch was 2 and is 4"):
        checkpoints.load(tmp_path, {}, {"batch": 4, "seed": 0})


def test_nothing_is_pickled(tmp_path: Path) -> None:
    checkpoints.save(tmp_path, {"model": nn.Linear(2, 2)}, 1)
    folder = tmp_path / "checkpoints" / "step-000001"
    assert {path.name for path in folder.iterdir()} == {"model.safetensors", "state.json"}
    assert json.loads((folder / "state.json").read_text())["done"] == 1
