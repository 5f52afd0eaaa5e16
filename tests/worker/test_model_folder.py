"""Folders that fit are served on exactly their grid; others are refused, naming the field."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from jobs.sampling_contract import FILE_NAME
from worker.errors import FolderRefusedError
from worker.model_folder.loading import device_and_dtype, load
from worker.model_folder.weights_hash import weights_sha256
from worker.testing import tiny_pipelines


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "copy"))


def _edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_the_grid_of_the_contract_is_served(folder: Path) -> None:
    _edit(folder / FILE_NAME, sigmas=[1.0, 0.9, 0.6, 0.2, 0.0])
    model = load(str(folder))
    assert model.name == "copy"
    torch.testing.assert_close(model.table.timesteps, torch.tensor([1000.0, 900.0, 600.0, 200.0]))
    torch.testing.assert_close(model.table.b, torch.tensor([-0.1, -0.3, -0.4, -0.2]))


def test_the_hash_of_the_weights_may_be_promised(folder: Path) -> None:
    promised = load(str(folder)).sha256
    _edit(folder / FILE_NAME, base_sha256=weights_sha256(folder))
    assert load(str(folder)).sha256 == promised


def test_without_a_contract_the_folders_own_scheduler_is_served_with_a_warning(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / FILE_NAME).unlink()
    with caplog.at_level(logging.WARNING):
        model = load(str(folder), steps=3)
    assert FILE_NAME in caplog.text
    scheduler = tiny_pipelines.build().scheduler
    scheduler.set_timesteps(3)
    torch.testing.assert_close(model.table.timesteps, scheduler.timesteps)
    assert model.contract.sizes == [(64, 64)]
    assert model.contract.max_sequence_length == tiny_pipelines.TOKENS


def _contract(**changes: object) -> Callable[[Path], None]:
    return lambda folder: _edit(folder / FILE_NAME, **changes)


def _index(text: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / "model_index.json").write_text(text)

    return spoil


def _pickled_weights(folder: Path) -> None:
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))


@pytest.mark.parametrize(
    ("spoil", "field"),
    [
        (_contract(sigmas=[1.0, 0.5, 0.6, 0.2, 0.0]), "sigmas"),
        (_contract(sigmas=None, timesteps=[999, 749, 499, 249]), "sigmas"),
        (_contract(prediction="epsilon"), "prediction"),
        (_contract(family="sdxl"), "family"),
        (_contract(family="sd1"), "family"),
        (_contract(base_sha256="00" * 32), "base_sha256"),
        (_contract(max_sequence_length=600), "max_sequence_length"),
        (_contract(sizes=[[64, 60]]), "sizes"),
        (_contract(sizes=[[512, 512]]), "sizes"),
        (_contract(colour="red"), "colour"),
        (_pickled_weights, "vae"),
        (lambda folder: _edit(folder / "model_index.json", _class_name="PixArtSigmaPipeline"), "family"),
        (lambda folder: _edit(folder / "model_index.json", _class_name=["pipeline_x", "X"]), "family"),
        (lambda folder: _edit(folder / "model_index.json", vae=["diffusers"]), "vae"),
        (_index("{"), "model_index.json"),
        (_index("[]"), "model_index.json"),
        (lambda folder: (folder / "model_index.json").unlink(), "model_index.json"),
        (lambda folder: _edit(folder / "vae" / "config.json", latent_channels=8), "vae"),
    ],
)
def test_a_folder_that_does_not_fit_is_refused_by_field(
    folder: Path, spoil: Callable[[Path], None], field: str
) -> None:
    spoil(folder)
    with pytest.raises(FolderRefusedError, match=rf"\b{field}\b"):
        load(str(folder))


def test_several_models_are_several_workers(tiny_folder: Path) -> None:
    with pytest.raises(FolderRefusedError, match=r"^model: a worker serves one model"):
        load(f"{tiny_folder},{tiny_folder}")


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FolderRefusedError, match=r"^model: .*nowhere"):
        load(str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("device", "dtype", "field"),
    [("cpu", "float16", "dtype"), ("gpu", "auto", "device")],
)
def test_a_device_or_dtype_that_is_not_served_is_refused(device: str, dtype: str, field: str) -> None:
    with pytest.raises(FolderRefusedError, match=f"^{field}: "):
        device_and_dtype(device, dtype)


@pytest.mark.parametrize(
    ("width", "able", "dtype"),
    [
        ("AVX512", {}, torch.float32),
        ("AVX512", {"avx512_bf16": True}, torch.bfloat16),
        ("AVX2", {"avx512_bf16": True}, torch.float32),
    ],
)
def test_auto_means_bfloat16_only_where_the_cpu_computes_in_it(
    width: str, able: dict[str, bool], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: width)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert device_and_dtype("cpu", "auto") == (torch.device("cpu"), dtype)


def test_the_hash_follows_the_weights_and_nothing_else(folder: Path) -> None:
    before = weights_sha256(folder)
    _edit(folder / FILE_NAME, method="dmd")
    assert weights_sha256(folder) == before
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert weights_sha256(folder) != before
