"""Files as published models have them, for tiny pipelines, and their import."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

from fourstep import app
from worker.testing import tiny_sdxl_pipelines as tiny_sdxl


def run_import(source: object, preset: str, out: Path, *options: object) -> Result:
    arguments = ["import", str(source), "--preset", preset, "--out", str(out), *map(str, options)]
    return CliRunner().invoke(app, arguments)


def student() -> Any:
    """A UNet of other weights than the base's."""
    unet = tiny_sdxl.build().unet
    with torch.no_grad():
        for weight in unet.parameters():
            weight *= 1.05
    return unet


def lora_file(path: Path, scale: float = 0.5) -> Path:
    """A LoRA file of random weights for the UNet of the tiny SDXL."""
    pipeline = tiny_sdxl.build()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        pipeline.unet.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=["to_q", "to_v", "to_out.0"]))
        for name, parameter in pipeline.unet.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=scale)
    layers = get_peft_model_state_dict(pipeline.unet)
    pipeline.save_lora_weights(path.parent, weight_name=path.name, unet_lora_layers=layers)
    return path


def network_file(name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        state = student().state_dict()
        if name.endswith(".bin"):
            torch.save(state, folder / name)
        else:
            save_file(state, folder / name)
        return folder / name

    return write
