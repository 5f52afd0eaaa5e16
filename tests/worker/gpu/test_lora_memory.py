"""A LoRA takes float32 only of what it touches, and only on the host."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.loaders.lora_base import LORA_WEIGHT_NAME_SAFE
from safetensors.torch import save_file

from tests.worker.lora_folder import lora_folder
from worker.families import registry
from worker.model_folder.loading import load
from worker.model_folder.lora import loading_dtypes
from worker.testing import tiny_pipelines


@pytest.mark.parametrize(
    ("weights", "touched"),
    [
        (["transformer.blocks.0.lora_A.weight"], {"transformer"}),
        (["text_encoder.layers.0.lora_A.weight"], {"text_encoder"}),
        (["lora_unet_blocks_0.alpha", "lora_te2_layers_0.alpha"], {"transformer", "text_encoder_2"}),
        (["text_encoder_3.layers.0.lora_A.weight"], {"text_encoder_3"}),
    ],
)
def test_f_float32_is_for_the_networks_that_a_lora_touches(
    tmp_path: Path, weights: list[str], touched: set[str]
) -> None:
    """T5 alone would be 19 GB of it."""
    save_file({name: torch.zeros(1) for name in weights}, tmp_path / LORA_WEIGHT_NAME_SAFE)
    types = loading_dtypes(tmp_path, registry.of(tiny_pipelines.build()), torch.bfloat16)
    assert types == {"default": torch.bfloat16} | dict.fromkeys(touched, torch.float32)


@pytest.mark.slow
def test_f_weights_are_rounded_before_they_are_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tmp_path / "base"
    tiny_pipelines.build().save_pretrained(base, safe_serialization=True)
    folder = lora_folder("sd3", tmp_path / "lora", base)
    moved: dict[str, set[torch.dtype]] = {}
    to = torch.nn.Module.to

    def recorded(module: torch.nn.Module, *place: Any, **named: Any) -> torch.nn.Module:
        if any(isinstance(each, torch.device) for each in (*place, *named.values())):
            moved[type(module).__name__] = {weight.dtype for weight in module.parameters()}
        return to(module, *place, **named)

    monkeypatch.setattr(torch.nn.Module, "to", recorded)
    load(str(folder), device="cpu", dtype="bfloat16")
    for network in ("SD3Transformer2DModel", "T5EncoderModel", "AutoencoderTiny"):
        assert moved[network] == {torch.bfloat16}
