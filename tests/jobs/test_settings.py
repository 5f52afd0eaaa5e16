import pytest
from pydantic import ValidationError

from jobs.settings import ApiSettings, Settings, WorkerSettings, explain


def test_variables_are_read_and_empty_ones_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOURSTEP_PORT", "9001")
    monkeypatch.setenv("FOURSTEP_MAX_BATCH", "16")
    monkeypatch.setenv("FOURSTEP_REDIS_URL", "")
    api, worker = ApiSettings(), WorkerSettings()
    assert (api.port, worker.max_batch, api.redis_url) == (9001, 16, None)


@pytest.mark.parametrize("kind", [ApiSettings, WorkerSettings])
def test_an_unknown_variable_is_refused_with_the_nearest_name(
    monkeypatch: pytest.MonkeyPatch, kind: type[Settings]
) -> None:
    monkeypatch.setenv("FOURSTEP_MAX_BACH", "16")
    with pytest.raises(ValidationError) as caught:
        kind()
    assert explain(caught.value) == "unknown variable FOURSTEP_MAX_BACH: did you mean FOURSTEP_MAX_BATCH?"


def test_a_bad_value_is_explained_with_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOURSTEP_PORT", "high")
    with pytest.raises(ValidationError) as caught:
        ApiSettings()
    assert explain(caught.value).startswith("FOURSTEP_PORT: ")


def test_a_call_that_could_never_be_admitted_is_refused_at_once() -> None:
    with pytest.raises(ValidationError, match="max_queued_images"):
        ApiSettings(max_images=64, max_queued_images=32)


@pytest.mark.parametrize("kind", [ApiSettings, WorkerSettings])
def test_every_setting_is_described(kind: type[Settings]) -> None:
    assert [name for name, field in kind.model_fields.items() if not field.description] == []


def test_graphs_that_do_not_exist_are_refused_by_name() -> None:
    with pytest.raises(ValidationError) as caught:
        WorkerSettings(cuda_graphs=True)
    assert explain(caught.value).startswith("FOURSTEP_CUDA_GRAPHS: ")
