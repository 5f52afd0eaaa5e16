"""A LoRA file with its base model gives the pictures that diffusers makes of the two."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.worker.lora_folder import TINY, lora_folder
from worker.engine.engine import Engine
from worker.errors import FolderRefusedError
from worker.generate import generate
from worker.model_folder.loading import load, served
from worker.model_folder.weights_hash import model_sha256, weights_sha256
from worker.testing import tiny_pipelines


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    models = tmp_path_factory.mktemp("models")
    for family, tiny in TINY.items():
        tiny.build().save_pretrained(models / family, safe_serialization=True)
    return {family: models / family for family in TINY}


@pytest.mark.slow
@pytest.mark.parametrize("family", TINY)
def test_the_lora_is_fused_into_its_base(family: str, bases: dict[str, Path], tmp_path: Path) -> None:
    base = bases[family]
    folder = lora_folder(family, tmp_path / "lora", base, base_sha256=weights_sha256(base))
    model = load(str(folder), dtype="float32")
    assert model.name == "lora"
    assert model.sha256 == model_sha256(model.contract, base, folder)
    ours = generate(Engine(model, 2), ["sun", "a red cat"], [1, 2]).astype(int)
    pipeline = TINY[family].build()
    plain = generate(Engine(served("plain", "ab", TINY[family].contract(), pipeline), 2), ["sun", "a red cat"], [1, 2])
    pipeline.load_lora_weights(folder)
    theirs = generate(Engine(served("lora", "ab", TINY[family].contract(), pipeline), 2), ["sun", "a red cat"], [1, 2])
    assert np.abs(ours - theirs).max() <= 1
    assert np.abs(ours - plain).max() > 4


@pytest.mark.slow
@pytest.mark.parametrize("family", TINY)
def test_it_is_added_in_float32_before_weights_are_rounded(family: str, bases: dict[str, Path], tmp_path: Path) -> None:
    folder = lora_folder(family, tmp_path / "lora", bases[family])
    whole, rounded = (load(str(folder), dtype=dtype).network for dtype in ("float32", "bfloat16"))
    expected = {name: weight.bfloat16() for name, weight in whole.denoiser.state_dict().items()}
    found = rounded.denoiser.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    parts = [part for part in rounded.pipeline.components.values() if isinstance(part, torch.nn.Module)]
    assert {weight.dtype for part in parts for weight in part.parameters()} == {torch.bfloat16}


def _without_contract(folder: Path) -> None:
    (folder / "sampling.json").unlink()


def _edited(**changes: object) -> Any:
    def edit(folder: Path) -> None:
        path = folder / "sampling.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit


@pytest.mark.parametrize(
    ("spoil", "field"),
    [
        (_without_contract, "base"),
        (_edited(base=None), "base"),
        (_edited(base="/nowhere"), "model"),
        (_edited(base_sha256="00" * 32), "base_sha256"),
        (lambda folder: (folder / "pytorch_lora_weights.safetensors").unlink(), "model_index.json"),
    ],
)
def test_a_lora_without_its_base_is_refused(spoil: Any, field: str, bases: dict[str, Path], tmp_path: Path) -> None:
    folder = lora_folder("sd3", tmp_path / "lora", bases["sd3"])
    spoil(folder)
    with pytest.raises(FolderRefusedError, match=f"^{field}: "):
        load(str(folder))


def test_a_lora_of_another_model_is_refused(bases: dict[str, Path], tmp_path: Path) -> None:
    folder = lora_folder("sdxl", tmp_path / "lora", bases["sdxl"])
    tiny_pipelines.contract(base=str(bases["sd3"])).save(folder)
    with pytest.raises(FolderRefusedError, match=r"^pytorch_lora_weights.safetensors: "):
        load(str(folder))
