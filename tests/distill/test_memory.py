"""The estimate of a run's memory agrees with what its trainer holds."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from distill import config as configuration
from distill import memory
from distill.commands import app
from distill.training.trainer import Trainer
from tests.distill.tiny_runs import SDXL_SETTINGS, SETTINGS
from worker.testing import tiny_pipelines, tiny_sdxl_pipelines

FAMILIES = {"sd3": (tiny_pipelines, SETTINGS), "sdxl": (tiny_sdxl_pipelines, SDXL_SETTINGS)}


@pytest.fixture(params=FAMILIES)
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> dict:
    pipelines, settings = FAMILIES[request.param]
    (tmp_path / "prompts.txt").write_text("a\nb\n")
    teacher = pipelines.save(tmp_path / "teacher")
    return settings | {"teacher": str(teacher), "prompts": str(tmp_path / "prompts.txt"), "precision": "bf16"}


def held(tensors) -> int:
    return sum(tensor.nbytes for tensor in tensors)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"lora_rank": 4}], ids=["copies", "adapters"])
def test_weights_average_and_optimizers_are_the_trainers(settings: dict, tmp_path: Path, changes: dict) -> None:
    config = configuration.DistillConfig.model_validate(settings | changes)
    said = memory.of_run(config)
    trainer = Trainer(config, tmp_path / "run")
    trainer.cycle(1)
    roles = (trainer.teacher, trainer.student, trainer.critic)
    networks = {id(role.network): role.network for role in roles}.values()
    assert said.weights == sum(held((*network.parameters(), *network.buffers())) for network in networks)
    average = trainer.average.module
    assert said.average == held((*average.parameters(), *average.buffers()))
    optimizers = (trainer.student_optimizer, trainer.critic_optimizer)
    sums = [value for each in optimizers for state in each.state.values() for value in state.values() if value.dim()]
    assert said.optimizers == held(sums)
    assert {value.dtype for value in sums} == {torch.float32}


@pytest.mark.slow
def test_adapters_and_checkpointing_take_less(settings: dict) -> None:
    def of(**changes) -> memory.Memory:
        return memory.of_run(configuration.DistillConfig.model_validate(settings | changes))

    whole, adapters, checkpointed = of(), of(lora_rank=4), of(gradient_checkpointing=True)
    assert adapters.weights < 0.4 * whole.weights
    assert adapters.gradients == adapters.optimizers // 4
    assert checkpointed.activations < whole.activations
    assert checkpointed.weights == whole.weights
    assert of(batch=4).activations == pytest.approx(2 * whole.activations, rel=0.2)


@pytest.mark.slow
def test_sd35m_is_asked_without_its_weights() -> None:
    configs = Path(configuration.__file__).parent / "configs"
    architecture = configs / "architectures" / "stable-diffusion-3.5-medium"
    arguments = ["memory", "--config", str(configs / "sd35m.yaml"), "--architecture", str(architecture)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert [line.split()[0] for line in result.stdout.splitlines()[:6]][-1] == "total"
    # 2,243,171,520 weights of the published model, twice in float32 and once in bfloat16, and three position tables.
    weights = 2_243_171_520 * (4 + 4 + 2) + 3 * 384**2 * 1536 * 4
    assert float(result.stdout.splitlines()[0].split()[1]) == pytest.approx(weights / 2**30, abs=0.01)


@pytest.mark.slow
def test_several_processes_and_the_disk_are_foretold(settings: dict, tmp_path: Path) -> None:
    """The files are as large as foretold; data parallelism holds its gradients twice more, sharding splits all."""
    config = configuration.DistillConfig.model_validate(settings | {"steps": 1, "save_every": 1, "precision": "no"})
    said = memory.on_disk(config)
    trainer = Trainer(config, tmp_path / "run")
    trainer.train()
    folder = tmp_path / "run" / "checkpoints" / "step-000001"
    written = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    headers = 200 * sum(len(load_file(path)) for path in folder.glob("*.safetensors"))
    assert said.checkpoint <= written <= said.checkpoint + headers + 20_000
    alone, copied, sharded = (memory.of_run(config, None, *how) for how in ((1,), (4,), (4, True)))
    assert (alone.buckets, copied.buckets) == (0, 2 * alone.gradients)
    assert copied.total == alone.total + copied.buckets
    assert sharded.optimizers == alone.optimizers // 4
    assert sharded.weights < alone.weights / 3
    assert sharded.activations == alone.activations


@pytest.mark.slow
def test_the_cache_of_a_published_model_is_foretold() -> None:
    """192,000 prompts of Stable Diffusion 3.5 are half a terabyte."""
    configs = Path(configuration.__file__).parent / "configs"
    config = configuration.load(configs / "sd35m.yaml")
    disk = memory.on_disk(config, configs / "architectures" / "stable-diffusion-3.5-medium")
    assert disk.embeddings == 2 * ((77 + 256) * 4096 + 2048)
    assert disk.embeddings * 192_000 / 1e9 == pytest.approx(525, abs=1)
