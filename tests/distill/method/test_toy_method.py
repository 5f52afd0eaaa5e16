"""A method is one class and one entry in the registry: settings, a module that learns, and terms of its own."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from pydantic import BaseModel, ConfigDict, PositiveFloat, ValidationError
from torch import nn

from distill import config as configuration
from distill import runs
from distill.config import DistillConfig
from distill.method.base import Batch, Method, Networks, NoSettings, frozen
from distill.method.dp_dmd import Hyperparameters, Term
from distill.method.registry import METHODS
from distill.training.trainer import Trainer
from jobs.sampling_contract import SamplingContract
from tests.distill.tiny_runs import SETTINGS
from worker.testing import tiny_pipelines


class Toy(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    weight: PositiveFloat = 1.0


class ToySettings(NoSettings):
    toy: Toy


class ToyMethod(Method):
    """A scale, which learns with the fake score, measures the student's samples."""

    name = "toy"
    Settings = ToySettings

    def __init__(self, config: DistillConfig, hparams: Hyperparameters, networks: Networks) -> None:
        super().__init__(config, hparams, networks)
        self.weight = config.section("toy").weight
        self.head = networks.prepare(nn.Linear(1, 1, bias=False))

    def critic_terms(self, batch: Batch) -> dict[str, Term]:
        return {"toy_critic": (self.weight, self.size)}

    def student_terms(self, batch: Batch, noise: torch.Tensor) -> dict[str, Term]:
        def distance(x: torch.Tensor) -> torch.Tensor:
            with frozen(self.head):
                return self.size(x - batch.teacher_sample(noise))

        return {"toy_student": (self.weight, distance)}

    def size(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x.flatten()[:, None]).square().mean()


@pytest.fixture
def write_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(METHODS, ToyMethod.name, ToyMethod)
    (tmp_path / "prompts.txt").write_text("a cat\ntwo dogs\n")

    def write(**changes: object) -> Path:
        paths = {"teacher": str(tmp_path / "teacher"), "prompts": str(tmp_path / "prompts.txt")}
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(SETTINGS | paths | {"steps": 2} | changes))
        return path

    return write


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"lora_rank": 4}], ids=["copies", "adapters"])
def test_a_registered_method_trains_from_a_configuration_that_names_it(write_config, tmp_path, changes):
    tiny_pipelines.save(tmp_path / "teacher")
    config_file = write_config(method="toy", toy={"weight": 0.5}, **changes)
    started = Trainer(configuration.load(config_file), tmp_path / "unused")
    before = started.method.head.weight.item()
    runs.start(config_file, tmp_path / "run", tmp_path / "student")
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    updates = [line for line in lines if "total" in line]
    assert [line["step"] for line in updates] == [1, 2]
    for line in updates:
        expected = line["dmd"] + 0.05 * line["diversity"] + 0.5 * line["toy_student"]
        assert line["total"] == pytest.approx(expected, rel=1e-4)
        assert line["toy_critic"] > 0
    trained = Trainer(configuration.load(tmp_path / "run" / "config.yaml"), tmp_path / "run")
    trained.train()
    assert trained.method.head.weight.item() != before
    assert SamplingContract.load(tmp_path / "student").method == "toy"


def test_methods_may_share_their_settings(write_config, monkeypatch):
    monkeypatch.setitem(METHODS, "toy-2", type("ToyMethod2", (ToyMethod,), {"name": "toy-2"}))
    for name in ("toy", "toy-2"):
        assert configuration.load(write_config(method=name, toy={"weight": 2})).section("toy").weight == 2


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"method": "toy"}, "toy\n  Field required"),
        ({"method": "toy", "toy": {"weight": 0}}, "toy.weight"),
        ({"method": "toy", "toy": {}, "gan": {}}, "gan: is for method dmd-gan alone"),
        ({"method": "dmd", "toy": {}}, "toy: is for method toy alone"),
        ({"method": "toys"}, "'toys' is none of dp-dmd, .*, toy"),
        ({"method": "toy", "toy": {}, "tooy": {}}, "tooy"),
    ],
)
def test_its_settings_are_checked(write_config, changes, named):
    with pytest.raises(ValidationError, match=named):
        configuration.load(write_config(**changes))
