"""A tiny model, loaded once, and steps that take equally long."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from worker.engine.engine import Engine
from worker.engine.scheduler import Size
from worker.engine.step_times.rehearsal import Rehearsal
from worker.engine.step_times.timetable import Timetable
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


@pytest.fixture(autouse=True)
def equal_step_times(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Schedule as if batches of every size took equally long, whatever else the processor does: all that wait join.

    Tests of what is measured are marked `step_times`.
    """
    if "step_times" in request.keywords:
        return
    enter = Timetable.set

    def enter_equal(table: Timetable, size: Size, times: Mapping[int, float], interpolated: bool) -> None:
        enter(table, size, dict.fromkeys(times, 1e-3), interpolated)

    monkeypatch.setattr(Timetable, "set", enter_equal)
    monkeypatch.setattr(Timetable, "served", lambda *step: None)
    monkeypatch.setattr(Rehearsal, "_encoding_s", lambda *prompts: 1e-3)
