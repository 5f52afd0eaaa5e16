"""LoRA files by the names of other programs are added whole, or refused in one line."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.worker.importing.files import run_import
from worker.errors import FolderRefusedError
from worker.families import registry
from worker.model_folder.loading import load
from worker.model_folder.lora import fuse
from worker.testing import tiny_sdxl_pipelines
from worker.testing.tiny_families import BUILDS

RANK = 2
LAYERS = (".attn1.to_q", ".attn2.to_v", ".attn1.to_out.0", ".q_proj", ".out_proj", ".fc1")
"""Endings of the names of adapted layers."""
Naming = Callable[[str, str], Iterator[str]]


def _peft(part: str, layer: str) -> Iterator[str]:
    yield from (f"{part}.{layer}.lora_A.weight", f"{part}.{layer}.lora_B.weight")


def _attention_processor(part: str, layer: str) -> Iterator[str]:
    """The names of diffusers' first files: those of text encoders are peft's."""
    before, _, projection = layer.removesuffix(".0").rpartition(".")
    if part != "unet":
        yield from _peft(part, layer)
    else:
        yield from (f"{part}.{before}.processor.{projection}_lora.{half}.weight" for half in ("down", "up"))


def _bare(part: str, layer: str) -> Iterator[str]:
    yield from (name.removeprefix(f"{part}.") for name in _attention_processor(part, layer))


def _kohya(part: str, layer: str) -> Iterator[str]:
    prefix = {"unet": "lora_unet", "text_encoder": "lora_te1", "text_encoder_2": "lora_te2"}[part]
    layer = layer if part == "unet" else f"text_model.{layer.removeprefix('text_model.')}"
    yield from (f"{prefix}_{layer.replace('.', '_')}.lora_{half}.weight" for half in ("down", "up"))


def _lora(pipeline: Any, parts: tuple[str, ...], naming: Naming) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """A LoRA for layers of `parts`, and their weights with it, by part and name."""
    state, expected = {}, {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for part in parts:
            for name, layer in getattr(pipeline, part).named_modules():
                if f".{name}".endswith(LAYERS):
                    down, up = torch.randn(RANK, layer.in_features), torch.randn(layer.out_features, RANK)
                    state |= dict(zip(naming(part, name), (down, up), strict=True))
                    expected[f"{part}.{name}"] = layer.weight + up @ down
    return state, expected


def _weights(pipeline: Any, names: dict[str, Any]) -> dict[str, torch.Tensor]:
    parts = {name: name.partition(".") for name in names}
    return {name: getattr(pipeline, part).get_submodule(layer).weight for name, (part, _, layer) in parts.items()}


ENCODERS = ("unet", "text_encoder", "text_encoder_2")


@pytest.mark.parametrize(
    ("naming", "parts"),
    [(_peft, ENCODERS), (_attention_processor, ENCODERS), (_bare, ("unet",)), (_kohya, ENCODERS)],
)
def test_all_layers_are_added(naming: Naming, parts: tuple[str, ...], bases: dict[str, Path], tmp_path: Path) -> None:
    state, expected = _lora(tiny_sdxl_pipelines.build(), parts, naming)
    file = tmp_path / "a_4step_lora.safetensors"
    save_file(state, file)
    result = run_import(file, "sdxl-lightning-4step", tmp_path / "out", "--base", bases["sdxl"])
    assert result.exit_code == 0, result.stderr
    found = _weights(load(str(tmp_path / "out"), dtype="float32").network.pipeline, expected)
    assert {name.partition(".")[0] for name in found} == set(parts)
    for name, weight in expected.items():
        assert torch.allclose(found[name], weight, atol=1e-5), name


def test_flux_has_its_clip_adapted(tmp_path: Path) -> None:
    pipeline = BUILDS["flux"]()
    state, expected = _lora(pipeline, ("transformer", "text_encoder"), _peft)
    for name, layer in pipeline.transformer.named_modules():
        if name.endswith("attn.to_q"):
            state |= {f"transformer.{name}.lora_A.weight": torch.ones(RANK, layer.in_features)}
            state |= {f"transformer.{name}.lora_B.weight": torch.ones(layer.out_features, RANK)}
            expected[f"transformer.{name}"] = layer.weight + RANK
    expected = {name: weight.detach().clone() for name, weight in expected.items()}
    save_file(state, tmp_path / "pytorch_lora_weights.safetensors")
    fuse(pipeline, registry.of(pipeline), tmp_path, 1.0)
    found = _weights(pipeline, expected)
    assert {name.partition(".")[0] for name in found} == {"transformer", "text_encoder"}
    for name, weight in expected.items():
        assert torch.allclose(found[name], weight, atol=1e-5), name


@pytest.mark.parametrize(
    ("family", "part"),
    [("flux", "text_encoder_2"), ("sd3", "text_encoder_3"), ("z-image", "text_encoder"), ("sdxl", "text_encoder_3")],
)
def test_layers_that_diffusers_would_leave_out_are_refused(family: str, part: str, tmp_path: Path) -> None:
    pipeline = BUILDS[family]()
    kind = registry.of(pipeline)
    state = {}
    for name, layer in getattr(pipeline, kind.denoiser).named_modules():
        if name.endswith(".to_q"):
            state |= {f"{kind.denoiser}.{name}.lora_A.weight": torch.ones(RANK, layer.in_features)}
            state |= {f"{kind.denoiser}.{name}.lora_B.weight": torch.ones(layer.out_features, RANK)}
    state |= {f"{part}.encoder.layer.lora_{half}.weight": torch.ones(RANK, RANK) for half in "AB"}
    save_file(state, tmp_path / "pytorch_lora_weights.safetensors")
    with pytest.raises(FolderRefusedError, match=rf"for 1 of its layers does not fit: {part}.encoder.layer$"):
        fuse(pipeline, kind, tmp_path, 1.0)


def _without_its_other_half(state: dict[str, torch.Tensor]) -> str:
    lost = next(name for name in state if name.endswith("lora_up.weight"))
    del state[lost]
    return lost


def _of_another_layer(state: dict[str, torch.Tensor]) -> str:
    state |= {f"lora_unet_down_blocks_7_layer.lora_{half}.weight": torch.ones(RANK, RANK) for half in ("down", "up")}
    return "7"


def _of_no_program(state: dict[str, torch.Tensor]) -> str:
    state["lora_unet_mid_block.hada_w1_a"] = torch.ones(RANK, RANK)
    return "lora_unet_mid_block.hada_w1_a"


def _dora(state: dict[str, torch.Tensor]) -> str:
    name = next(iter(state)).replace("lora_down.weight", "dora_scale")
    state[name] = torch.ones(1, RANK)
    return name


def _of_a_text_encoder(state: dict[str, torch.Tensor]) -> str:
    name = "lora_te1_text_model_encoder_layers_9_mlp_fc1"
    state |= {f"{name}.lora_{half}.weight": torch.ones(RANK, RANK) for half in ("down", "up")}
    return "text_encoder.encoder.layers.9.mlp.fc1"


@pytest.mark.parametrize(
    "spoil", [_without_its_other_half, _of_another_layer, _of_no_program, _dora, _of_a_text_encoder]
)
def test_names_that_are_not_read_are_named(
    spoil: Callable[[dict[str, torch.Tensor]], str], bases: dict[str, Path], tmp_path: Path
) -> None:
    state, _ = _lora(tiny_sdxl_pipelines.build(), ("unet",), _kohya)
    named = spoil(state)
    save_file(state, tmp_path / "a_4step_lora.safetensors")
    result = run_import(
        tmp_path / "a_4step_lora.safetensors", "sdxl-lightning-4step", tmp_path / "out", "--base", bases["sdxl"]
    )
    assert (result.exit_code, "Traceback" in result.stderr) == (1, False)
    lines = [line for line in result.stderr.splitlines() if "a_4step_lora.safetensors" in line]
    assert len(lines) == 1
    assert named in lines[0]
