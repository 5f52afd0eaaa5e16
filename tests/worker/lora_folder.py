"""A LoRA of random weights for a tiny pipeline."""

import os
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model_state_dict

from worker.testing import tiny_pipelines, tiny_sdxl_pipelines

TINY: dict[str, Any] = {"sd3": tiny_pipelines, "sdxl": tiny_sdxl_pipelines}
DENOISERS = {"sd3": "transformer", "sdxl": "unet"}


def lora_folder(family: str, folder: Path, base: Path, **changes: Any) -> Path:
    """A LoRA file of random weights for a tiny pipeline of `family`, whose contract names `base`."""
    pipeline = TINY[family].build()
    denoiser = getattr(pipeline, DENOISERS[family])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        denoiser.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=["to_q", "to_v", "to_out.0"]))
        for name, parameter in denoiser.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.5)
    layers = get_peft_model_state_dict(denoiser)
    pipeline.save_lora_weights(folder, **{f"{DENOISERS[family]}_lora_layers": layers})
    TINY[family].contract(base=os.path.relpath(base, folder), **changes).save(folder)
    return folder
