"""A tiny model, loaded once."""

from pathlib import Path

import pytest

from worker.engine.engine import Engine
from worker.model_folder.loading import LoadedModel, load
from worker.testing import tiny_pipelines


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pipelines.save(tmp_path_factory.mktemp("models") / "tiny-student")


@pytest.fixture(scope="session")
def tiny_model(tiny_folder: Path) -> LoadedModel:
    return load(str(tiny_folder), device="cpu", dtype="float32")


@pytest.fixture
def engine(tiny_model: LoadedModel) -> Engine:
    return Engine(tiny_model, max_batch=4)
