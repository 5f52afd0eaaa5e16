"""Files of a published model become a folder that serves it."""

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler
from safetensors.torch import save_file

from jobs.sampling_contract import SamplingContract
from tests.worker.families import published
from tests.worker.importing import all_in_one
from tests.worker.importing.files import lora_file, network_file, run_import, student
from tests.worker.model_folder.hub_server import serving
from worker.model_folder.loading import load
from worker.model_folder.weights_hash import weights_sha256
from worker.testing import (
    tiny_qwen_image_pipelines,
    tiny_sd_pipelines,
)
from worker.testing import tiny_sdxl_pipelines as tiny_sdxl

SIZE = (64, 64)
LIGHTNING = EulerDiscreteScheduler(**tiny_sd_pipelines.ALPHAS, timestep_spacing="trailing")


def _theirs(pipeline: Any) -> np.ndarray:
    pipeline.scheduler = LIGHTNING
    return published.theirs(pipeline, SIZE, num_inference_steps=4, guidance_scale=1.0)


def _served(folder: Path) -> np.ndarray:
    return published.ours(load(str(folder), dtype="float32"), SIZE)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [None, 0.5])
def test_a_lora_file_is_served_on_its_base(scale: float | None, bases: dict[str, Path], tmp_path: Path) -> None:
    file = lora_file(tmp_path / "sdxl_lightning_4step_lora.safetensors")
    options = ["--base", bases["sdxl"], "--size", "64x64", *([] if scale is None else ["--lora-scale", scale])]
    result = run_import(file, "sdxl-lightning-4step", tmp_path / "out", *options)
    assert result.exit_code == 0, result.stderr
    assert "licence, as its card named it when this was written: CreativeML Open RAIL++-M" in result.stdout
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "pytorch_lora_weights.safetensors",
        "sampling.json",
    ]
    pipeline = tiny_sdxl.build()
    pipeline.load_lora_weights(tmp_path, weight_name=file.name)
    pipeline.fuse_lora(lora_scale=1.0 if scale is None else scale)
    assert published.agrees(_served(tmp_path / "out"), _theirs(pipeline))


def _lightning(path: Path) -> Path:
    """A LoRA file for the tiny Qwen-Image, by the names that Lightning's have."""
    pipeline, state = tiny_qwen_image_pipelines.build(), {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for name, layer in pipeline.transformer.named_modules():
            if name.endswith((".attn.to_q", ".attn.add_v_proj", ".img_mlp.net.2")):
                state[f"{name}.lora_down.weight"] = torch.randn(4, layer.in_features) * 0.3
                state[f"{name}.lora_up.weight"] = torch.randn(layer.out_features, 4) * 0.3
                state[f"{name}.alpha"] = torch.tensor(2.0)
    save_file(state, path)
    return path


@pytest.mark.slow
def test_lightning_is_served_on_qwen_image(tmp_path: Path) -> None:
    tiny_qwen_image_pipelines.build(lightning=False).save_pretrained(tmp_path / "base", safe_serialization=True)
    file = _lightning(tmp_path / "Qwen-Image-Lightning-4steps-V2.0.safetensors")
    options = ["--base", tmp_path / "base", "--size", "64x64"]
    result = run_import(file, "qwen-image-lightning-4step", tmp_path / "out", *options)
    assert result.exit_code == 0, result.stderr
    contract = SamplingContract.load(tmp_path / "out")
    contract.model_copy(update={"max_sequence_length": tiny_qwen_image_pipelines.TOKENS}).save(tmp_path / "out")
    pipeline = tiny_qwen_image_pipelines.build()
    plain = pipeline.transformer.transformer_blocks[0].attn.to_q.weight.clone()
    pipeline.load_lora_weights(tmp_path, weight_name=file.name)
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    assert (pipeline.transformer.transformer_blocks[0].attn.to_q.weight - plain).abs().max() > 0.1
    options = {"max_sequence_length": tiny_qwen_image_pipelines.TOKENS, "true_cfg_scale": 1.0}
    expected = published.theirs(pipeline, SIZE, num_inference_steps=4, **options)
    assert published.agrees(_served(tmp_path / "out"), expected)


def _folder(folder: Path) -> Path:
    student().save_pretrained(folder / "student")
    return folder / "student"


@pytest.mark.slow
@pytest.mark.parametrize(
    "write",
    [network_file("sdxl_lightning_4step_unet.safetensors"), network_file("student_4step_unet_fp16.bin"), _folder],
)
def test_a_network_takes_the_place_of_the_bases(
    write: Callable[[Path], Path], bases: dict[str, Path], tmp_path: Path
) -> None:
    source = write(tmp_path)
    options = ["--base", bases["sdxl"], "--size", "64x64"]
    result = run_import(source, "sdxl-lightning-4step", tmp_path / "out", *options)
    assert result.exit_code == 0, result.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["sampling.json", "unet"]
    pipeline = tiny_sdxl.build()
    pipeline.unet = student()
    assert published.agrees(_served(tmp_path / "out"), _theirs(pipeline))


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever connects to anything fails."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.slow
@pytest.mark.usefixtures("offline")
def test_the_denoiser_is_read_out_of_a_file_with_all_networks(tmp_path: Path) -> None:
    all_in_one.pipeline().save_pretrained(tmp_path / "base", safe_serialization=True)
    student = all_in_one.pipeline(1.05)
    file = all_in_one.save(student.unet.state_dict(), tmp_path / "sdxl_lightning_4step.safetensors")
    options = ["--base", tmp_path / "base", "--size", "64x64"]
    result = run_import(file, "sdxl-lightning-4step", tmp_path / "out", *options)
    assert result.exit_code == 0, result.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["sampling.json", "unet"]
    assert published.agrees(_served(tmp_path / "out"), _theirs(student))


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("spoil", [lambda state: state.pop("conv_out.weight"), lambda state: state.popitem()])
def test_a_file_with_all_networks_that_lacks_a_tensor_is_refused(spoil: Callable[[Any], Any], tmp_path: Path) -> None:
    all_in_one.pipeline().save_pretrained(tmp_path / "base", safe_serialization=True)
    state = all_in_one.unet().state_dict()
    spoil(state)
    file = all_in_one.save(state, tmp_path / "sdxl_lightning_4step.safetensors")
    result = run_import(file, "sdxl-lightning-4step", tmp_path / "out", "--base", tmp_path / "base")
    assert (result.exit_code, "Traceback" in result.stderr) == (1, False)
    assert "sdxl_lightning_4step.safetensors does not" in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_pipeline_is_named_and_not_copied(bases: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bases["sd"], tmp_path / "sd"))
    card = folder / "README.md"
    card.write_text("---\nlicense: other\nlicense_name: a-licence-of-its-own\n---\n")
    result = run_import(folder, "sd-turbo-4step", tmp_path / "out", "--size", "64x64", "--size", "96x64")
    assert result.exit_code == 0, result.stderr
    assert "licence by its card: a-licence-of-its-own\n" in result.stdout
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["sampling.json"]
    model = load(str(tmp_path / "out"), dtype="float32")
    assert model.contract.sizes == [(64, 64), (64, 96)]
    expected = published.theirs(tiny_sd_pipelines.build(), SIZE, num_inference_steps=4, guidance_scale=0.0)
    assert published.agrees(published.ours(model, SIZE), expected)


@pytest.mark.parametrize("repository", ["stabilityai/sd-turbo", "people/sd-2-1"])
def test_of_a_pipeline_on_the_hub_only_configurations_are_fetched(
    repository: str, bases: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(repository, bases["sd"], tmp_path / "cache", monkeypatch) as hub:
        result = run_import(repository, "sd-turbo-1step", tmp_path / "out")
        assert result.exit_code == 0, result.stderr
        assert [name for name in hub.fetched if name.endswith(".safetensors")] == []
    assert json.loads((tmp_path / "out" / "sampling.json").read_text())["base"] == repository
    note = "sd-turbo-1step was made for stabilityai/sd-turbo: people/sd-2-1 may need other steps or guidance"
    assert (note in result.stdout) == ("Stability AI" not in result.stdout) == (repository == "people/sd-2-1")


def test_a_file_on_the_hub_is_named_after_its_repository(
    bases: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "repository").mkdir()
    lora_file(tmp_path / "repository" / "sdxl_lightning_4step_lora.safetensors")
    options = ["--base", bases["sdxl"]]
    with serving("ByteDance/SDXL-Lightning", tmp_path / "repository", tmp_path / "cache", monkeypatch):
        named = run_import("ByteDance/SDXL-Lightning", "sdxl-lightning-4step", tmp_path / "named", *options)
        file = "ByteDance/SDXL-Lightning/sdxl_lightning_4step_lora.safetensors"
        given = run_import(file, "sdxl-lightning-4step", tmp_path / "given", *options)
    assert (named.exit_code, given.exit_code) == (0, 0), named.stderr + given.stderr
    assert load(str(tmp_path / "named")).sha256 == load(str(tmp_path / "given")).sha256


@pytest.mark.parametrize(
    ("name", "preset", "part"),
    [
        ("sdxl_lightning_4step_lora.safetensors", "sdxl-lightning-4step", "pytorch_lora_weights.safetensors"),
        ("pytorch_lora_weights.safetensors", "sdxl-lightning-4step", "pytorch_lora_weights.safetensors"),
        ("dmd2_sdxl_1step_unet_fp16.bin", "dmd2-sdxl-1step", "unet"),
    ],
)
def test_a_clone_stands_for_the_presets_own_file_in_it(
    name: str, preset: str, part: str, bases: dict[str, Path], tmp_path: Path
) -> None:
    clone = tmp_path / "clone"
    clone.mkdir()
    lora_file(clone / name) if part.endswith(".safetensors") else network_file(name)(clone)
    (clone / "other_8step_lora.safetensors").write_bytes(b"of another preset")
    result = run_import(clone, preset, tmp_path / "out", "--base", bases["sdxl"])
    assert result.exit_code == 0, result.stderr
    assert {path.name for path in (tmp_path / "out").iterdir()} == {part, "sampling.json"}


def test_klein_and_schnell_are_imported_by_their_settings(bases: dict[str, Path], tmp_path: Path) -> None:
    for name, preset in (("schnell", "flux-schnell-4step"), ("klein", "flux2-klein-4b-4step")):
        result = run_import(bases[name], preset, tmp_path / name, "--size", "64x64", "--size", "96x64")
        assert result.exit_code == 0, result.stderr
        assert json.loads((tmp_path / name / "sampling.json").read_text())["family"] in preset


def test_a_base_on_the_hub_is_fetched_whole_for_what_fits_it(
    bases: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = lora_file(tmp_path / "sdxl_lightning_4step_lora.safetensors")
    with serving("people/sdxl", bases["sdxl"], tmp_path / "cache", monkeypatch) as hub:
        result = run_import(file, "sdxl-lightning-4step", tmp_path / "out", "--base", "people/sdxl")
        assert result.exit_code == 0, result.stderr
    assert "unet/diffusion_pytorch_model.safetensors" in hub.fetched
    contract = SamplingContract.load(tmp_path / "out")
    assert (contract.base, contract.base_sha256) == ("people/sdxl", weights_sha256(bases["sdxl"]))


@pytest.mark.slow
@pytest.mark.parametrize("lora", [True, False])
def test_an_imported_folder_is_a_base(lora: bool, bases: dict[str, Path], tmp_path: Path) -> None:
    network = network_file("student_4step.safetensors")(tmp_path)
    assert run_import(network, "sdxl-lightning-4step", tmp_path / "first", "--base", bases["sdxl"]).exit_code == 0
    file = lora_file(tmp_path / "a_4step_lora.safetensors") if lora else network
    options = ["--base", tmp_path / "first", "--size", "64x64"]
    result = run_import(file, "sdxl-lightning-4step", tmp_path / "deeper" / "out", *options)
    assert result.exit_code == 0, result.stderr
    pipeline = tiny_sdxl.build()
    pipeline.unet = student()
    if lora:
        pipeline.load_lora_weights(tmp_path, weight_name=file.name)
        pipeline.fuse_lora()
    assert published.agrees(_served(tmp_path / "deeper" / "out"), _theirs(pipeline))


def test_an_imported_pipeline_stands_for_the_one_that_it_names(bases: dict[str, Path], tmp_path: Path) -> None:
    assert run_import(bases["sd"], "sd-turbo-4step", tmp_path / "first").exit_code == 0
    file = _sd_lora(tmp_path / "Hyper-SD15-8steps-lora.safetensors")
    result = run_import(file, "hyper-sd15-8steps", tmp_path / "out", "--base", tmp_path / "first")
    assert result.exit_code == 0, result.stderr
    written = load(str(tmp_path / "out")).contract
    assert ((tmp_path / "out" / str(written.base)).resolve(), written.parts) == (
        bases["sd"].resolve(),
        ["pytorch_lora_weights.safetensors"],
    )


def _sd_lora(path: Path) -> Path:
    """A LoRA file for the UNet of the tiny Stable Diffusion."""
    unet = tiny_sd_pipelines.build().unet
    state = {}
    for name, layer in unet.named_modules():
        if name.endswith((".to_q", ".to_v")):
            state[f"unet.{name}.lora_A.weight"] = torch.full((2, layer.in_features), 0.1)
            state[f"unet.{name}.lora_B.weight"] = torch.full((layer.out_features, 2), 0.1)
    save_file(state, path)
    return path
