"""The hashes of a folder follow all that its pictures depend on, and nothing is read that they leave out."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.sampling_contract import FILE_NAME
from worker.errors import FolderRefusedError
from worker.model_folder.loading import load
from worker.model_folder.weights_hash import weights_sha256


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "copy"))


def _edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_weights_behind_a_link_count(folder: Path, tmp_path: Path) -> None:
    before = weights_sha256(folder)
    shutil.move(folder / "vae", tmp_path / "elsewhere")
    (folder / "vae").symlink_to(tmp_path / "elsewhere")
    assert weights_sha256(folder) == before
    weights = tmp_path / "elsewhere" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert weights_sha256(folder) != before


def test_a_link_that_leads_back_is_followed_once(folder: Path) -> None:
    (folder / "vae" / "back").symlink_to(folder)
    weights_sha256(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: _edit(folder / FILE_NAME, sigmas=[1.0, 0.9, 0.6, 0.2, 0.0]),
        lambda folder: _edit(folder / "scheduler" / "scheduler_config.json", shift=2.0),
    ],
    ids=["sampling", "configuration"],
)
def test_the_hash_of_a_model_is_of_all_that_its_pictures_depend_on(
    folder: Path, change: Callable[[Path], None]
) -> None:
    before, weights = load(str(folder)).sha256, weights_sha256(folder)
    _edit(folder / FILE_NAME, metrics={"fid": 1.0})
    (folder / "README.md").write_text("about")
    assert load(str(folder)).sha256 == before
    change(folder)
    assert load(str(folder)).sha256 != before
    assert weights_sha256(folder) == weights


def _index_of_pickles(folder: Path) -> None:
    index = {"metadata": {"total_size": 1}, "weight_map": {"a": "w.bin"}}
    (folder / "vae" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))


def _pipe(folder: Path) -> None:
    (folder / FILE_NAME).unlink()
    os.mkfifo(folder / FILE_NAME)


def _zeros(folder: Path) -> None:
    (folder / "model_index.json").unlink()
    (folder / "model_index.json").symlink_to("/dev/zero")


def _not_a_number(folder: Path) -> None:
    text = (folder / FILE_NAME).read_text()
    document = json.loads(text)
    document["sigmas"][1] = float("nan")
    (folder / FILE_NAME).write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (_index_of_pickles, "w.bin"),
        (_pipe, FILE_NAME),
        (_zeros, "model_index.json"),
        (_not_a_number, "sigmas"),
        (lambda folder: _edit(folder / "transformer" / "config.json", num_layers=10**9), "num_layers"),
    ],
)
@pytest.mark.timeout(120)
def test_what_is_no_plain_model_is_refused(folder: Path, spoil: Callable[[Path], None], named: str) -> None:
    spoil(folder)
    with pytest.raises(FolderRefusedError, match=named):
        load(str(folder))
