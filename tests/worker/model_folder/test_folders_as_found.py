"""Folders as people have them: only what the index names is looked at, fetched and hashed."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusion3Pipeline

from jobs.sampling_contract import FILE_NAME
from tests.worker.model_folder.hub_server import serving
from worker.engine.engine import Engine
from worker.errors import FolderRefusedError
from worker.generate import generate
from worker.model_folder.loading import load
from worker.model_folder.pipeline_folder import INDEX, read_index
from worker.model_folder.weights_hash import weights_sha256
from worker.testing import tiny_pipelines, tiny_sd_pipelines

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def sd_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "sd-turbo"
    tiny_sd_pipelines.build().save_pretrained(folder, safe_serialization=True)
    return folder


@pytest.fixture
def folder(sd_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sd_folder, tmp_path / "sd-turbo"))


def _file(path: Path, content: bytes = b"not weights") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _clone_of_everything(folder: Path) -> None:
    """Write the files that clones of published repositories hold beside the model."""
    for name in (
        ".git/lfs/objects/ab/model.safetensors",
        "sd_turbo.safetensors",
        "vae_decoder/model.onnx",
        "vae_decoder/weights.bin",
        "safety_checker/pytorch_model.bin",
        "unet/diffusion_pytorch_model.non_ema.safetensors",
        "unet/diffusion_pytorch_model.bin",
        "README.md",
    ):
        _file(folder / name)
    index = json.loads((folder / INDEX).read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    (folder / INDEX).write_text(json.dumps(index))


def test_what_the_index_does_not_name_is_not_looked_at(sd_folder: Path, folder: Path) -> None:
    _clone_of_everything(folder)
    model = load(str(folder), dtype="float32")
    assert weights_sha256(folder) == weights_sha256(sd_folder)
    assert model.network.pipeline.safety_checker is None
    assert (model.contract.family, model.contract.start) == ("sd", "level")


def test_weights_in_float16_serve_where_there_are_no_others(sd_folder: Path, folder: Path) -> None:
    plain = load(str(sd_folder), dtype="float32")
    for part in ("unet", "vae"):
        (folder / part / WEIGHTS).rename(folder / part / WEIGHTS.replace(".safe", ".fp16.safe"))
    (folder / "text_encoder" / "model.safetensors").rename(folder / "text_encoder" / "model.fp16.safetensors")
    half = load(str(folder), dtype="float32")
    assert half.sha256 != plain.sha256
    pictures = [generate(Engine(model, 2), ["sun"], [1]) for model in (plain, half)]
    assert np.array_equal(*pictures)


def test_plain_weights_come_before_those_in_float16(sd_folder: Path, folder: Path) -> None:
    _file(folder / "unet" / WEIGHTS.replace(".safe", ".fp16.safe"))
    assert load(str(folder), dtype="float32").sha256 == load(str(sd_folder), dtype="float32").sha256


def test_pickled_weights_of_a_component_are_refused(folder: Path) -> None:
    (folder / "unet" / WEIGHTS).rename(folder / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(FolderRefusedError, match=r"^unet: only pickled weights"):
        load(str(folder))


def test_a_folder_without_its_largest_text_encoder_is_served_as_diffusers_does(tmp_path: Path) -> None:
    pipeline = tiny_pipelines.build()
    pipeline.register_modules(text_encoder_3=None, tokenizer_3=None)
    pipeline.save_pretrained(tmp_path, safe_serialization=True)
    tiny_pipelines.contract(max_sequence_length=None).save(tmp_path)
    ours = generate(Engine(load(str(tmp_path), dtype="float32"), 2), ["a red cat"], [5])
    theirs = StableDiffusion3Pipeline.from_pretrained(tmp_path, text_encoder_3=None, tokenizer_3=None)(
        "a red cat",
        sigmas=[1.0, 0.75, 0.5, 0.25],
        guidance_scale=1.0,
        generator=torch.Generator().manual_seed(5),
        height=64,
        width=64,
        output_type="np",
    ).images
    assert np.abs(ours.astype(int) - (theirs * 255).round()).max() <= 1


def test_a_folder_without_a_text_encoder_that_it_needs_is_refused(folder: Path) -> None:
    index = json.loads((folder / INDEX).read_text())
    (folder / INDEX).write_text(json.dumps(index | {"text_encoder": [None, None]}))
    with pytest.raises(FolderRefusedError, match=r"^text_encoder: .* names none, and sd needs one$"):
        load(str(folder))


# The hub


@pytest.mark.slow
def test_only_the_files_of_the_model_are_fetched_and_the_cache_serves_offline(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _clone_of_everything(folder)
    _file(folder / "unet" / WEIGHTS.replace(".safe", ".fp16.safe"))
    with serving("people/sd-turbo", folder, tmp_path / "cache", monkeypatch) as hub:
        online = load("people/sd-turbo", dtype="float32")
        assert sorted(hub.fetched) == [
            INDEX,
            "scheduler/scheduler_config.json",
            "text_encoder/config.json",
            "text_encoder/model.safetensors",
            "tokenizer/tokenizer.json",
            "tokenizer/tokenizer_config.json",
            "unet/config.json",
            f"unet/{WEIGHTS}",
            "vae/config.json",
            f"vae/{WEIGHTS}",
        ]
    assert online.name == "people/sd-turbo"
    assert load("people/sd-turbo", dtype="float32").sha256 == online.sha256


@pytest.mark.slow
def test_a_sampling_contract_is_fetched_too(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(str(folder), dtype="float32", steps=2)
    model.contract.save(folder)
    with serving("people/student", folder, tmp_path / "cache", monkeypatch) as hub:
        assert load("people/student", dtype="float32").contract.steps == 2
        assert FILE_NAME in hub.fetched


def test_another_pipeline_is_refused_before_its_weights_are_fetched(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = json.loads((folder / INDEX).read_text())
    (folder / INDEX).write_text(json.dumps(index | {"_class_name": "PixArtSigmaPipeline"}))
    with serving("people/pixart", folder, tmp_path / "cache", monkeypatch) as hub:
        with pytest.raises(FolderRefusedError, match=r"^family: .*, not PixArtSigmaPipeline$"):
            load("people/pixart")
        assert hub.fetched == [INDEX]


def test_a_hub_model_that_is_neither_there_nor_cached_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving("people/sd-turbo", folder, tmp_path / "cache", monkeypatch):
        pass
    with pytest.raises(FolderRefusedError, match=r"^model: people/sd-turbo is no folder here, and .* out of reach"):
        load("people/sd-turbo")


def test_a_mistyped_folder_is_answered_by_those_beside_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path.parent)
    mistyped = f"{tmp_path.name}/sd-turbi"
    with serving("people/sd-turbo", folder, tmp_path / "cache", monkeypatch):
        pass
    with pytest.raises(
        FolderRefusedError, match=rf"^model: {mistyped} is no folder here \({tmp_path.name} has sd-turbo\)"
    ):
        load(mistyped)


SHARDS = ["unet/diffusion_pytorch_model-00001-of-00002.safetensors", f"unet/{WEIGHTS}.index.json"]
HALF_SHARDS = ["unet/diffusion_pytorch_model.fp16-00001-of-00002.safetensors", f"unet/{WEIGHTS}.index.fp16.json"]


@pytest.mark.parametrize(
    ("there", "needed"), [([*SHARDS, *HALF_SHARDS], SHARDS), (HALF_SHARDS, HALF_SHARDS)], ids=["both", "float16"]
)
def test_the_index_of_weights_in_several_files_is_fetched_with_them(
    there: list[str], needed: list[str], sd_folder: Path
) -> None:
    assert read_index(sd_folder).needed(there) == sorted(needed)
