"""Every published file, built tiny by its name and form, is imported by one command and gives diffusers' pictures."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import save_file

from jobs.sampling_contract import SamplingContract
from tests.worker.families import published
from tests.worker.importing.documented import GIVEN, scheduler_of
from tests.worker.importing.files import run_import
from worker.families import registry
from worker.importing.presets import PRESETS, Preset
from worker.model_folder.loading import load
from worker.testing import (
    tiny_flux_pipelines,
    tiny_pipelines,
    tiny_qwen3_pipelines,
    tiny_qwen_image_pipelines,
    tiny_sd_pipelines,
)
from worker.testing.tiny_families import BUILDS

SIZE = (64, 64)
TOKENS = {
    "sd3": tiny_pipelines.TOKENS,
    "flux": tiny_pipelines.TOKENS,
    "flux2-klein": tiny_qwen3_pipelines.TOKENS,
    "z-image": tiny_qwen3_pipelines.TOKENS,
    "qwen-image": tiny_qwen_image_pipelines.TOKENS,
}
"""The length of the tiny pipelines' prompts, by family."""
CALLS: dict[str, dict[str, Any]] = {
    "z-image": {"guidance_scale": 0.0},
    "qwen-image": {"true_cfg_scale": 1.0},
    "sana-sprint": {"guidance_scale": 4.5, "intermediate_timesteps": None, "use_resolution_binning": False},
}
"""How the cards of a family call its pipeline, beside the number of steps."""
BY_FILE = {preset.source: preset for preset in PRESETS.values()}
"""One preset for each file: those that share one differ in their number of steps."""


def _pipeline(preset: Preset) -> Any:
    """A new pipeline like the one that the file is made for, or is."""
    told = "pipeline" in preset.kinds and "told_guidance" in preset.sampling and preset.family == "sd"
    pipeline = tiny_sd_pipelines.build(time_cond_proj_dim=16) if told else BUILDS[preset.family]()
    if preset.base == "black-forest-labs/FLUX.1-dev":
        pipeline = tiny_flux_pipelines.build(guidance_embeds=True)
    pipeline.scheduler = scheduler_of(preset) or pipeline.scheduler
    return pipeline


def _lora_file(preset: Preset, file: Path) -> Any:
    """Write a LoRA file of random weights; returns the pipeline with them as diffusers reads it."""
    pipeline = _pipeline(preset)
    denoiser = registry.of(pipeline).denoiser
    network = getattr(pipeline, denoiser)
    network.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=["to_q", "to_v", "to_out.0"]))
    for name, parameter in network.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    layers = {f"{denoiser}_lora_layers": get_peft_model_state_dict(network)}
    pipeline.save_lora_weights(file.parent, weight_name=file.name, **layers)
    adapted = _pipeline(preset)
    adapted.load_lora_weights(file.parent, weight_name=file.name)
    adapted.fuse_lora(lora_scale=preset.sampling.get("lora_scale", 1.0))
    return adapted


def _network(preset: Preset, path: Path) -> Any:
    """Write a denoiser of other weights, as a file or a folder; returns the pipeline with it."""
    pipeline = _pipeline(preset)
    denoiser = registry.of(pipeline).denoiser
    network = getattr(pipeline, denoiser)
    if "told_guidance" in preset.sampling:
        network = type(network).from_config(network.config, time_cond_proj_dim=16)
        setattr(pipeline, denoiser, network)
    with torch.no_grad():
        for weight in network.parameters():
            weight *= 1.05
    if path.suffix in (".bin", ".pt"):
        torch.save(network.state_dict(), path)
    elif path.suffix:
        save_file(network.state_dict(), path)
    else:
        network.save_pretrained(path)
    return pipeline


def _publish(preset: Preset, folder: Path) -> tuple[Path, Any]:
    """Write the file or folder by its name; returns it, and the pipeline that it makes."""
    path = folder / Path(preset.source).name
    if "pipeline" in preset.kinds:
        pipeline = _pipeline(preset)
        pipeline.save_pretrained(path, safe_serialization=True)
        return path, pipeline
    write = _lora_file if "LoRA file" in preset.kinds else _network
    return path, write(preset, path)


@pytest.mark.slow
@pytest.mark.parametrize("preset", BY_FILE.values(), ids=lambda preset: preset.name)
def test_its_pictures_are_those_of_diffusers(preset: Preset, tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        path, pipeline = _publish(preset, tmp_path)
    options: list[object] = ["--size", "64x64"]
    if preset.base:
        _pipeline(preset).save_pretrained(tmp_path / "base", safe_serialization=True)
        options += ["--base", tmp_path / "base"]
    result = run_import(path, preset.name, tmp_path / "out", *options)
    assert result.exit_code == 0, result.stderr
    guidance = preset.sampling.get("told_guidance") or preset.sampling.get("guidance_scale", 1.0)
    call = dict(CALLS.get(preset.family, {"guidance_scale": guidance}))
    if tokens := TOKENS.get(preset.family):
        contract = SamplingContract.load(tmp_path / "out")
        contract.model_copy(update={"max_sequence_length": tokens}).save(tmp_path / "out")
        call["max_sequence_length"] = tokens
    call |= {"timesteps": GIVEN[preset.name]} if preset.name in GIVEN else {"num_inference_steps": preset.steps}
    call |= {"eta": 1.0} if preset.sampling.get("sampler") == "tcd" else {}
    expected = published.theirs(pipeline, SIZE, **call)
    assert published.agrees(published.ours(load(str(tmp_path / "out"), dtype="float32"), SIZE), expected)
