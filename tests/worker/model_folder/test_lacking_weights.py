"""A file without one of its tensors is refused by name: no weight is made up in its place."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionConfig, CLIPVisionModel
from typer.testing import CliRunner

from distill import teacher_pipeline
from distill.evaluation.feature_spaces import clip
from fourstep import app
from tests.worker.importing.files import run_import
from tests.worker.lora_folder import lora_folder
from worker.errors import FolderRefusedError
from worker.model_folder.loading import load
from worker.testing import tiny_pipelines, tiny_sd_pipelines

LACKING = [
    ("text_encoder/model.safetensors", "text_model.encoder.layers.0.mlp.fc1.weight"),
    ("text_encoder_3/model.safetensors", "encoder.final_layer_norm.weight"),
    ("transformer/diffusion_pytorch_model.safetensors", "proj_out.bias"),
    ("vae/diffusion_pytorch_model.safetensors", "decoder.layers.0.weight"),
]


def _remove(file: Path, *tensors: str) -> None:
    state = load_file(file)
    for tensor in tensors:
        del state[tensor]
    save_file(state, file, metadata={"format": "pt"})


@pytest.mark.parametrize(("file", "tensor"), LACKING)
def test_a_model_that_lacks_a_weight_is_refused(file: str, tensor: str, tiny_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
    _remove(folder / file, tensor)
    part = Path(file).parent
    said = rf"^{part}: {folder / part} lacks 1 weight: {tensor}$"
    for read in (
        lambda: load(str(folder), device="cpu", dtype="float32"),
        lambda: load(str(folder), device="meta", dtype="float32"),
        lambda: teacher_pipeline.load(folder),
    ):
        with pytest.raises(FolderRefusedError, match=said):
            read()


def test_a_shard_that_lacks_what_its_index_promises_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
    part = folder / "transformer"
    (part / "diffusion_pytorch_model.safetensors").unlink()
    transformer = tiny_pipelines.build().transformer
    transformer.save_pretrained(
        part, max_shard_size=4 * sum(weight.numel() for weight in transformer.parameters()) // 2
    )
    shards = sorted(part.glob("*.safetensors"))
    assert len(shards) > 1
    load(str(folder), device="cpu", dtype="float32")
    tensor = min(load_file(shards[-1]))
    _remove(shards[-1], tensor)
    for device in ("cpu", "meta"):
        with pytest.raises(FolderRefusedError, match=rf"^transformer: {part} lacks 1 weight: {tensor}$"):
            load(str(folder), device=device, dtype="float32")


@pytest.mark.parametrize("index", ["{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"proj_out.bias": 1}}'])
def test_an_index_that_names_no_files_is_refused(index: str, tiny_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
    (folder / "transformer" / "diffusion_pytorch_model.safetensors.index.json").write_text(index)
    with pytest.raises(FolderRefusedError, match=r"^diffusion_pytorch_model\.safetensors\.index\.json: "):
        load(str(folder), device="meta", dtype="float32")


@pytest.mark.parametrize("part", ["text_encoder/model", "vae/diffusion_pytorch_model"])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_file_that_was_cut_short_is_refused(part: str, device: str, tiny_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
    file = folder / f"{part}.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(FolderRefusedError, match=rf"^{file.parent.name}: .* does not load"):
        load(str(folder), device=device, dtype="float32")


def test_the_commands_name_how_many_weights_there_are_not(tmp_path: Path) -> None:
    folder = tmp_path / "sd"
    tiny_sd_pipelines.build().save_pretrained(folder)
    vae = folder / "vae" / "diffusion_pytorch_model.safetensors"
    _remove(vae, *sorted(name for name in load_file(vae) if name.startswith("decoder."))[:5])
    check = CliRunner().invoke(app, ["models", "check", str(folder)])
    shapes = CliRunner().invoke(app, ["models", "check", str(folder), "--gpu-memory", "24GB"])
    imported = run_import(folder, "sd-turbo-4step", tmp_path / "out")
    for result in (check, shapes, imported):
        assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
        assert f"vae: {vae.parent} lacks 5 weights: decoder." in result.stderr
        assert result.stderr.endswith(", … 2 more\n")
    assert not (tmp_path / "out").exists()


def _without_its_layer(name: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    layer = name.partition(".lora_A")[0]
    return {key.replace(layer, f"{layer}.inner"): value for key, value in state.items()}


def _without_its_half(name: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: value for key, value in state.items() if key != name}


def _with_a_vector(name: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return state | {name: state[name][0].contiguous()}


@pytest.mark.parametrize("spoil", [_without_its_layer, _without_its_half, _with_a_vector])
def test_a_lora_with_a_layer_that_the_base_cannot_take_is_refused(
    spoil: Callable[[str, dict[str, torch.Tensor]], dict[str, torch.Tensor]], tiny_folder: Path, tmp_path: Path
) -> None:
    folder = lora_folder("sd3", tmp_path / "lora", tiny_folder)
    file = folder / "pytorch_lora_weights.safetensors"
    state = load_file(file)
    save_file(spoil(min(state), state), file)
    with pytest.raises(FolderRefusedError, match=r"^pytorch_lora_weights.* for 1 of its layers does not fit: transf"):
        load(str(folder), dtype="float32")


def test_a_judge_of_pictures_that_lacks_a_weight_is_refused(tmp_path: Path) -> None:
    config = CLIPVisionConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    CLIPVisionModel(config).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    _remove(file, next(name for name in load_file(file) if "fc1.weight" in name))
    with pytest.raises(ValueError, match=r"^--features clip: .* lacks 1 weight: .*fc1.weight$"):
        clip(tmp_path)


def test_tied_weights_are_in_the_file_once(tiny_folder: Path) -> None:
    state = load_file(tiny_folder / "text_encoder_3" / "model.safetensors")
    assert ("shared.weight" in state) != ("encoder.embed_tokens.weight" in state)
    encoder = load(str(tiny_folder), device="cpu", dtype="float32").network.pipeline.text_encoder_3
    expected = tiny_pipelines.build().text_encoder_3.get_input_embeddings().weight
    torch.testing.assert_close(encoder.get_input_embeddings().weight, expected)
