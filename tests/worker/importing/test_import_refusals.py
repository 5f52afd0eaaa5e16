"""Files that contradict their preset are refused, and so are imported folders that have lost a part."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import hf_hub_download
from safetensors.torch import load_file, save_file

from tests.worker.importing.files import lora_file, network_file, run_import
from tests.worker.model_folder.hub_server import serving
from worker.errors import FolderRefusedError
from worker.model_folder.loading import load
from worker.testing import tiny_pipelines, tiny_qwen3_pipelines, tiny_sd_pipelines
from worker.testing.tiny_families import BUILDS


@pytest.mark.parametrize("part", ["unet", "sampling.json"])
def test_an_imported_folder_without_its_part_is_refused(part: str, bases: dict[str, Path], tmp_path: Path) -> None:
    file = network_file("student_4step.safetensors")(tmp_path)
    assert run_import(file, "sdxl-lightning-4step", tmp_path / "out", "--base", bases["sdxl"]).exit_code == 0
    path = tmp_path / "out" / part
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(FolderRefusedError, match=r"^model_index.json: missing"):
        load(str(tmp_path / "out"))


def _without_a_tensor(folder: Path) -> Path:
    state = load_file(network_file("x_4step.safetensors")(folder))
    del state["conv_out.weight"]
    save_file(state, folder / "x_4step.safetensors")
    return folder / "x_4step.safetensors"


def _lora_of_another(folder: Path) -> Path:
    state = {
        name: tensor[:, :3].contiguous() for name, tensor in load_file(lora_file(folder / "a.safetensors")).items()
    }
    save_file(state, folder / "wider_4step_lora.safetensors")
    return folder / "wider_4step_lora.safetensors"


def _no_tensors(folder: Path) -> Path:
    (folder / "x.safetensors").write_bytes(b"no tensors")
    return folder / "x.safetensors"


def _filled(folder: Path) -> Path:
    (folder / "out").mkdir()
    (folder / "out" / "picture.png").touch()
    return lora_file(folder / "a_4step_lora.safetensors")


def _pipeline(build: Callable[[], Any], **scheduler: object) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        pipeline = build()
        pipeline.scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config, **scheduler)
        pipeline.save_pretrained(folder / "model")
        return folder / "model"

    return write


def _lora(name: str) -> Callable[[Path], Path]:
    return lambda folder: lora_file(folder / name)


SD_BASE = _pipeline(tiny_sd_pipelines.build, timestep_spacing="leading")
Z_IMAGE_BASE = _pipeline(tiny_qwen3_pipelines.z_image, shift=6.0)
LCM = _pipeline(lambda: tiny_sd_pipelines.build(16), timestep_spacing="trailing")
LORA = _lora("sdxl_lightning_8step_lora.safetensors")
HYPER = _lora("Hyper-SDXL-8steps-lora.safetensors")
EDIT = _lora("Qwen-Image-Edit-2509-Lightning-4steps-V1.0.safetensors")
NEWER = _lora("qwen_image_2512_LIGHTNING_4steps.safetensors")


@pytest.mark.parametrize(
    ("write", "preset", "base", "said"),
    [
        (LORA, "sdxl-lightning-4step", "sdxl", "4step_lora.safetensors, but the file is named sdxl_lightning_8step"),
        (HYPER, "hyper-sdxl-8steps-cfg", "sdxl", "made for ByteDance/Hyper-SD/Hyper-SDXL-8steps-CFG-lora"),
        (HYPER, "sdxl-lightning-8step", "sdxl", "but the file is named Hyper-SDXL-8steps-lora"),
        (HYPER, "hyper-sdxl-unified-8steps", "sdxl", "Hyper-SDXL-1step-lora.safetensors, but the file is named Hyper"),
        (EDIT, "qwen-image-lightning-4step", "sdxl", "but the file is named Qwen-Image-Edit-2509"),
        (NEWER, "qwen-image-lightning-4step", "sdxl", "but the file is named qwen_image_2512"),
        (LORA, "sdxl-lightning-9step", "sdxl", "--preset: sdxl-lightning-9step is none of those"),
        (LORA, "sdxl-lightning-1step", "sdxl", "published as network or all-in-one file, but"),
        (LORA, "sdxl-lightning-8step", "sd", "made for sdxl, but"),
        (_lora("student_8steps.safetensors"), "hyper-sd15-8steps", "sdxl", "made for sd, but"),
        (LORA, "lcm-dreamshaper-4steps", None, "published as pipeline, but"),
        (_lora_of_another, "sdxl-lightning-4step", "sdxl", "layers are not the base's"),
        (_without_a_tensor, "sdxl-lightning-4step", "sdxl", "1 missing: conv_out.weight"),
        (network_file("x_4step.safetensors"), "lcm-sdxl-4steps", "sdxl", "is told its guidance scale, unlike"),
        (network_file("x_4step.safetensors"), "dpdmd-sd35m-4step", "sd3", "missing: "),
        (_no_tensors, "sdxl-lightning-4step", "sdxl", "not a checkpoint of tensors alone"),
        (_filled, "sdxl-lightning-4step", "sdxl", "out exists already"),
        (lambda folder: folder, "sdxl-lightning-4step", "sdxl", "holds neither a pipeline"),
        (lambda folder: "nowhere", "sdxl-lightning-4step", "sdxl", "neither a file or folder here, nor a hub id"),
        (_lora("Hyper-FLUX.1-dev-8steps-lora.safetensors"), "hyper-flux-8steps", "schnell", "guidance_embeds True in"),
        (lambda folder: "dev", "flux-schnell-4step", None, "guidance_embeds False in transformer/config.json"),
        (lambda folder: "sdxl", "sdxl-turbo-4step", None, "has timestep_spacing trailing in scheduler/"),
        (SD_BASE, "sd-turbo-4step", None, "has timestep_spacing trailing in scheduler/"),
        (Z_IMAGE_BASE, "z-image-turbo-8step", None, "has shift 3.0 in scheduler/scheduler_config"),
        (lambda folder: "sd", "lcm-dreamshaper-4steps", None, "is told its guidance scale, unlike"),
        (LCM, "sd-turbo-4step", None, "is not told its guidance scale, unlike"),
        (lambda folder: "sd", "sdxl-turbo-4step", None, "made for sdxl, but"),
        (lambda folder: "sd", "sd-turbo-4step", "sdxl", "--base: sd-turbo-4step is a whole pipeline"),
    ],
)
def test_what_contradicts_the_preset_is_refused_before_anything_is_written(
    write: Callable[[Path], Any], preset: str, base: str | None, said: str, bases: dict[str, Path], tmp_path: Path
) -> None:
    source = write(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    options = [] if base is None else ["--base", bases[base]]
    result = run_import(bases.get(source, source), preset, tmp_path / "out", *options)
    assert (result.exit_code, "Traceback" in result.stderr) == (1, False)
    assert said in result.stderr
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("family", "preset", "size", "said"),
    [
        ("sd", "sd-turbo-4step", "65x64", "must be multiples of 4\n"),
        ("flux", "flux-schnell-4step", "64x65", "must be multiples of"),
        ("flux2-klein", "flux2-klein-4b-4step", "65x64", "must be multiples of"),
        ("sana-sprint", "sana-sprint-2step", "65x64", "must be multiples of"),
        ("z-image", "z-image-turbo-8step", "65x64", "must be multiples of"),
        ("z-image", "z-image-turbo-8step", "32000x64", "and at most"),
        ("sd3", "sd35-large-turbo-4steps", "136x64", "must be multiples of 8 and at most 128 pixels\n"),
    ],
)
def test_a_size_that_the_family_does_not_take_is_refused(
    family: str, preset: str, size: str, said: str, tmp_path: Path
) -> None:
    BUILDS[family]().save_pretrained(tmp_path / "model")
    result = run_import(tmp_path / "model", preset, tmp_path / "out", "--size", "64x64", "--size", size)
    assert (result.exit_code, "Traceback" in result.stderr) == (1, False)
    assert f"--size: {size.replace('x', '×')} must be " in result.stderr
    assert said in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "preset"),
    [
        ("people/sd-turbo", "sd-turbo-4step"),
        ("people/lcm-sdxl", "lcm-sdxl-4steps"),
        ("people/student/x_4step.safetensors", "sdxl-lightning-4step"),
    ],
)
def test_a_hub_out_of_reach_is_named(
    given: str, preset: str, bases: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = "/".join(given.split("/")[:2])
    with serving(repository, bases["sd"], tmp_path / "cache", monkeypatch):
        hf_hub_download(repository, "scheduler/scheduler_config.json")  # the cache holds a part of it
    result = run_import(given, preset, tmp_path / "out")
    assert (result.exit_code, "Traceback" in result.stderr) == (1, False)
    assert f"{given} cannot be downloaded: the Hugging Face hub is out of reach" in result.stderr


HUB_BASE = "people/sdxl"


@pytest.mark.parametrize(
    ("write", "preset", "size", "said"),
    [
        (LORA, "sdxl-lightning-4step", "64x64", "but the file is named sdxl_lightning_8step"),
        (LORA, "sdxl-lightning-1step", "64x64", "published as network or all-in-one file, but"),
        (_lora("student_8steps.safetensors"), "hyper-sd15-8steps", "64x64", "made for sd, but"),
        (_lora_of_another, "sdxl-lightning-4step", "64x64", "layers are not the base's"),
        (_without_a_tensor, "sdxl-lightning-4step", "64x64", "1 missing: conv_out.weight"),
        (network_file("x_4step.safetensors"), "lcm-sdxl-4steps", "64x64", "is told its guidance scale, unlike"),
        (LORA, "sdxl-lightning-8step", "65x64", "--size: 65×64 must be multiples of"),
    ],
)
def test_what_contradicts_the_preset_is_refused_before_the_bases_weights_are_fetched(
    write: Callable[[Path], Any],
    preset: str,
    size: str,
    said: str,
    bases: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with serving(HUB_BASE, bases["sdxl"], tmp_path / "cache", monkeypatch) as hub:
        result = run_import(write(tmp_path), preset, tmp_path / "out", "--base", HUB_BASE, "--size", size)
    assert (result.exit_code, "Traceback" in result.stderr) == (1, False)
    assert said in result.stderr
    assert {Path(name).suffix for name in hub.fetched} <= {".json"}


def test_a_file_that_is_named_after_another_is_not_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "repository").mkdir()
    file = lora_file(tmp_path / "repository" / "sdxl_lightning_8step_lora.safetensors")
    with serving("people/copies", file.parent, tmp_path / "cache", monkeypatch) as hub:
        result = run_import(f"people/copies/{file.name}", "sdxl-lightning-4step", tmp_path / "out")
    assert (result.exit_code, "Traceback" in result.stderr) == (1, False)
    assert "but the file is named sdxl_lightning_8step" in result.stderr
    assert hub.fetched == []


def test_a_folder_with_a_lora_file_is_no_base(bases: dict[str, Path], tmp_path: Path) -> None:
    file = lora_file(tmp_path / "a_4step_lora.safetensors")
    assert run_import(file, "sdxl-lightning-4step", tmp_path / "first", "--base", bases["sdxl"]).exit_code == 0
    result = run_import(file, "sdxl-lightning-4step", tmp_path / "out", "--base", tmp_path / "first")
    assert (result.exit_code, "Traceback" in result.stderr) == (1, False)
    assert "first holds a LoRA file, and cannot be a base; its own is " in result.stderr


def test_a_contract_without_a_base_is_none(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    tiny_pipelines.contract().save(tmp_path / "base")
    file = lora_file(tmp_path / "a_4step_lora.safetensors")
    result = run_import(file, "sdxl-lightning-4step", tmp_path / "out", "--base", tmp_path / "base")
    assert (result.exit_code, "Traceback" in result.stderr) == (1, False)
    assert "model_index.json: missing in" in result.stderr
