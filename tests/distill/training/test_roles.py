"""Student and critic as adapters on the teacher: switching between them, and their exports."""

import re
from pathlib import Path

import pytest
import torch
import yaml
from diffusers import StableDiffusion3Pipeline, StableDiffusionXLPipeline
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from torch._inductor import config
from typer.testing import CliRunner

from distill import runs
from distill.commands import app
from distill.training import models, roles
from tests.distill.tiny_runs import SDXL_SETTINGS, SETTINGS
from worker.families import registry
from worker.families.prompt_embeddings import PromptEmbedding
from worker.model_folder import loading
from worker.testing import tiny_pipelines, tiny_sdxl_pipelines
from worker.testing.tiny_families import BUILDS

MODULATION = re.compile(r"norm|_mod\b|adaLN")
"""Layers by which the noise level scales and shifts a block's channels."""
FAMILIES = {"sd3": (tiny_pipelines, StableDiffusion3Pipeline), "sdxl": (tiny_sdxl_pipelines, StableDiffusionXLPipeline)}


@pytest.fixture(params=FAMILIES)
def pipeline(request: pytest.FixtureRequest):
    return FAMILIES[request.param][0].build()


def ask(role, family) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    state = torch.randn(2, 4, 16, 16, generator=generator)
    prompt, pooled = torch.randn(2, 16, 64, generator=generator), torch.randn(2, 64, generator=generator)
    embeddings = PromptEmbedding(prompt, pooled[:, : 32 if family.name == "sdxl" else 64])
    return family.predict(role, state, torch.tensor([900.0, 300.0]), embeddings, (64, 64))


def test_with_adapters_off_the_teacher_answers_to_the_last_bit(pipeline):
    family = registry.of(pipeline)
    network = getattr(pipeline, family.denoiser)
    with torch.no_grad():
        before = ask(network, family)
    teacher, student, critic = roles.adapters(network, 4, family.lora_targets)
    with torch.no_grad():
        assert torch.equal(ask(student, family), before), "a new adapter changes nothing"
        for role, factor in ((student, 0.1), (critic, -0.1)):
            for parameter in role.weights.parameters():
                parameter.add_(factor * torch.randn(parameter.shape))
        answers = [ask(role, family) for role in (student, critic, teacher)]
        assert torch.equal(answers[2], before)
        assert not torch.equal(answers[0], before)
        assert not torch.equal(answers[0], answers[1])
        assert torch.equal(ask(student, family), answers[0])


def test_gradients_reach_the_role_that_answered_though_others_answered_after_it(pipeline):
    family = registry.of(pipeline)
    teacher, student, critic = roles.adapters(getattr(pipeline, family.denoiser), 4, family.lora_targets)
    loss = ask(student, family).square().mean()
    with torch.no_grad():
        ask(critic, family)
        ask(teacher, family)
    loss.backward()
    assert any(parameter.grad is not None for parameter in student.weights.parameters())
    assert all(parameter.grad is None for parameter in critic.weights.parameters())
    own = {id(parameter) for parameter in student.weights.parameters()}
    others = (parameter for parameter in student.network.parameters() if id(parameter) not in own)
    assert all(parameter.grad is None for parameter in others)


@pytest.mark.parametrize("name", BUILDS)
def test_adapters_reach_all_that_mixes_channels_in_a_transformer_block(name: str) -> None:
    pipeline = BUILDS[name]()
    family = registry.of(pipeline)
    network = getattr(pipeline, family.denoiser)
    mixing = {
        f"{block_path}.{path}"
        for block_path, block in network.named_modules()
        if type(block).__name__.endswith("TransformerBlock")
        for path, layer in block.named_modules()
        if isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1)
        if not MODULATION.search(path)
    }
    roles.attach(network, "student", 2, family.lora_targets)
    reached = {path for path, layer in network.named_modules() if isinstance(layer, BaseTunerLayer)}
    assert mixing
    assert sorted(mixing - reached) == []


def test_a_role_can_hold_other_weights_for_a_while():
    role = roles.Role(network := nn.Linear(2, 2), network)
    kept, other = network.weight.detach().clone(), nn.Linear(2, 2)
    held = other.weight.detach().clone()
    with role.holding(other):
        assert torch.equal(network.weight, held)
    assert torch.equal(network.weight, kept)
    assert torch.equal(other.weight, held)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["dp-dmd", "dmd-gan"])
def test_adapters_train_and_export_merged_or_as_a_file(family, method, tmp_path):
    pipelines, plain = FAMILIES[family]
    folder = pipelines.save(tmp_path / "teacher")
    (tmp_path / "prompts.txt").write_text("\n".join(f"prompt {word}" for word in "abcdefghijklmnopqrst"))
    settings = {"sd3": SETTINGS, "sdxl": SDXL_SETTINGS}[family]
    changes = {"teacher": str(folder), "prompts": str(tmp_path / "prompts.txt"), "lora_rank": 4, "method": method}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings | changes | {"steps": 1}))
    run, merged = tmp_path / "run", tmp_path / "merged"
    runs.start(tmp_path / "config.yaml", run, None)
    export = ["export", "--run", str(run), "--dtype", "float32", "--out"]
    assert CliRunner().invoke(app, [*export, str(merged)]).exit_code == 0
    assert CliRunner().invoke(app, [*export, str(tmp_path / "lora"), "--lora"]).exit_code == 0
    adapted = plain.from_pretrained(folder)
    name = registry.of(adapted).denoiser
    before = weights(getattr(adapted, name))
    adapted.load_lora_weights(tmp_path / "lora")
    adapted.fuse_lora()
    adapted.unload_lora_weights()
    after, students = weights(getattr(adapted, name)), weights(getattr(plain.from_pretrained(merged), name))
    assert before.keys() == students.keys() == after.keys()
    assert any(not torch.equal(before[key], students[key]) for key in before)
    for key in students:
        torch.testing.assert_close(after[key], students[key])
    served = loading.load(str(tmp_path / "lora"), dtype="float32")
    assert served.contract.base == "../teacher"
    for key, value in weights(getattr(served.network.pipeline, name)).items():
        torch.testing.assert_close(value, students[key])


def weights(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


@pytest.mark.slow
def test_whole_networks_have_no_lora_file(tmp_path: Path):
    config = SETTINGS | {"teacher": str(tiny_pipelines.save(tmp_path / "teacher")), "steps": 1}
    (tmp_path / "prompts.txt").write_text("a\nb\n")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config | {"prompts": str(tmp_path / "prompts.txt")}))
    runs.start(tmp_path / "config.yaml", tmp_path / "run", None)
    result = CliRunner().invoke(
        app, ["export", "--run", str(tmp_path / "run"), "--out", str(tmp_path / "lora"), "--lora"]
    )
    assert (result.exit_code, "lora_rank" in result.stderr) == (2, True)


def test_a_machine_without_a_compiler_is_told_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config.cpp, "cxx", ("/nonexistent/g++",))
    with pytest.raises(ValueError, match=r"compile: there is no C\+\+ compiler here; install g\+\+"):
        models._require_compiler(torch.device("cpu"))
    models._require_compiler(torch.device("meta"))
