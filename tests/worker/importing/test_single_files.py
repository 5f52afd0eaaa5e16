"""Turbos in single files, by the names of their authors, are served with the rest of their own pipeline."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from diffusers import EulerAncestralDiscreteScheduler
from safetensors.torch import save_file

from jobs.sampling_contract import SamplingContract
from tests.worker.families import published
from tests.worker.importing import all_in_one, authors_names
from tests.worker.importing.files import run_import
from tests.worker.model_folder.hub_server import serving
from worker.families import registry
from worker.model_folder.loading import load
from worker.testing import tiny_sd_pipelines
from worker.testing.tiny_families import BUILDS

SIZE = (64, 64)
Naming = Callable[[Mapping[str, torch.Tensor]], dict[str, torch.Tensor]]


@pytest.mark.slow
def test_sdxl_turbo_is_read_out_of_one_file(tmp_path: Path) -> None:
    all_in_one.pipeline().save_pretrained(tmp_path / "base", safe_serialization=True)
    turbo = all_in_one.pipeline(1.05)
    turbo.scheduler = EulerAncestralDiscreteScheduler(**tiny_sd_pipelines.ALPHAS, timestep_spacing="trailing")
    file = all_in_one.save(turbo.unet.state_dict(), tmp_path / "sd_xl_turbo_1.0_fp16.safetensors")
    options = ["--base", tmp_path / "base", "--size", "64x64"]
    result = run_import(file, "sdxl-turbo-4step", tmp_path / "out", *options)
    assert result.exit_code == 0, result.stderr
    expected = published.theirs(turbo, SIZE, num_inference_steps=4, guidance_scale=1.0)
    assert published.agrees(published.ours(load(str(tmp_path / "out"), dtype="float32"), SIZE), expected)


@pytest.mark.parametrize(
    ("family", "preset", "name", "naming"),
    [
        ("z-image", "z-image-turbo-8step", "z_image_turbo_bf16.safetensors", authors_names.z_image),
        ("sd3", "sd35-large-turbo-4steps", "sd3.5_large_turbo.safetensors", authors_names.stable_diffusion_3),
    ],
)
def test_a_transformer_is_read_by_the_names_of_its_authors(
    family: str, preset: str, name: str, naming: Naming, tmp_path: Path
) -> None:
    pipeline = BUILDS[family]()
    pipeline.save_pretrained(tmp_path / "base", safe_serialization=True)
    network = getattr(pipeline, registry.of(pipeline).denoiser)
    with torch.no_grad():
        for weight in network.parameters():
            weight *= 1.05
    save_file(naming(network.state_dict()), tmp_path / name)
    result = run_import(tmp_path / name, preset, tmp_path / "out", "--base", tmp_path / "base", "--size", "64x64")
    assert result.exit_code == 0, result.stderr
    found = load(str(tmp_path / "out"), dtype="float32").network.denoiser.state_dict()
    for each, weight in network.state_dict().items():
        assert torch.equal(found[each], weight), each


def test_the_rest_is_by_default_the_published_pipelines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    all_in_one.pipeline().save_pretrained(tmp_path / "base", safe_serialization=True)
    file = all_in_one.save(all_in_one.unet(1.05).state_dict(), tmp_path / "sd_xl_turbo_1.0.safetensors")
    with serving("stabilityai/sdxl-turbo", tmp_path / "base", tmp_path / "cache", monkeypatch):
        result = run_import(file, "sdxl-turbo-1step", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    assert SamplingContract.load(tmp_path / "out").base == "stabilityai/sdxl-turbo"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda state: {name: tensor.to(torch.float8_e4m3fn) for name, tensor in state.items()}, "weights of 8 bits"),
        (lambda state: state | {"guidance_in.in_layer.weight": torch.ones(2, 2)}, "is not told its guidance scale"),
    ],
)
def test_files_that_would_be_read_wrongly_are_refused(spoil: Callable, said: str, tmp_path: Path) -> None:
    pipeline = BUILDS["flux"]()
    pipeline.save_pretrained(tmp_path / "base", safe_serialization=True)
    save_file(spoil(pipeline.transformer.state_dict()), tmp_path / "flux1.safetensors")
    options = ["--base", tmp_path / "base"]
    result = run_import(tmp_path / "flux1.safetensors", "flux-schnell-4step", tmp_path / "out", *options)
    assert (result.exit_code, "Traceback" in result.stderr) == (1, False)
    assert said in result.stderr
    assert not (tmp_path / "out").exists()
