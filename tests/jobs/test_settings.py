from pathlib import Path

import pytest
from pydantic import ValidationError

from jobs import settings
from jobs.settings import ApiSettings, Settings, WorkerSettings, explain
from service.webhooks.sender import MOST_AT_ONCE


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


def test_lists_are_read_at_commas_and_keys_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOURSTEP_API_KEYS", "one, two,")
    monkeypatch.setenv("FOURSTEP_CORS_ORIGINS", "https://a.example")
    settings = ApiSettings()
    assert [key.get_secret_value() for key in settings.api_keys] == ["one", "two"]
    assert settings.cors_origins == ("https://a.example",)
    assert "two" not in repr(settings)


@pytest.mark.parametrize("wrong", [{}, {"api_keys": "k", "max_images": 20}])
def test_a_rate_needs_keys_and_must_fit_one_call(wrong: dict) -> None:
    with pytest.raises(ValidationError, match=r"(?i)rate_limit"):
        ApiSettings(rate_limit=10, **wrong)


@pytest.mark.parametrize("kind", [ApiSettings, WorkerSettings])
def test_what_kubernetes_sets_for_a_service_called_fourstep_is_no_setting(
    monkeypatch: pytest.MonkeyPatch, kind: type[Settings]
) -> None:
    for service in ("FOURSTEP", "FOURSTEP_METRICS", "FOURSTEP_REDIS"):
        address = {"PROTO": "tcp", "PORT": "80", "ADDR": "10.0.0.1"}
        links = {f"PORT_80_TCP_{name}": value for name, value in address.items()}
        links |= {"PORT": "tcp://10.0.0.1:80", "PORT_80_TCP": "tcp://10.0.0.1:80", "SERVICE_HOST": "10.0.0.1"}
        links |= {"SERVICE_PORT": "80", "SERVICE_PORT_HTTP": "80"}
        for name, value in links.items():
            monkeypatch.setenv(f"{service}_{name}", value)
    settings = kind()
    assert getattr(settings, "port", 8000) == 8000
    assert getattr(settings, "metrics_port", 8001) == 8001


def test_a_misspelt_port_is_still_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOURSTEP_METRIC_PORT", "9000")
    with pytest.raises(ValidationError, match="did you mean FOURSTEP_METRICS_PORT"):
        WorkerSettings()


@pytest.mark.parametrize(
    ("aliases", "read"),
    [("a=b, c-*=d,", (("a", "b"), ("c-*", "d"))), ("", ())],
)
def test_aliases_are_pairs(monkeypatch: pytest.MonkeyPatch, aliases: str, read: tuple) -> None:
    monkeypatch.setenv("FOURSTEP_MODEL_ALIASES", aliases)
    assert ApiSettings().model_aliases == read


@pytest.mark.parametrize("aliases", ["a", "a=", "=b", "a=b=c"])
def test_an_alias_without_a_model_is_refused(monkeypatch: pytest.MonkeyPatch, aliases: str) -> None:
    monkeypatch.setenv("FOURSTEP_MODEL_ALIASES", aliases)
    with pytest.raises(ValidationError) as caught:
        ApiSettings()
    assert "FOURSTEP_MODEL_ALIASES: Value error, write NAME=MODEL" in explain(caught.value)


def test_a_secret_may_be_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "SECRETS", tmp_path)
    (tmp_path / "fourstep_redis_password").write_text("p@ss:word/\n")
    (tmp_path / "fourstep_api_keys").write_text("one,two\n")
    read = ApiSettings(redis_url="redis://redis:6379/0")
    assert read.redis_url == "redis://:p%40ss%3Aword%2F@redis:6379/0"
    assert [key.get_secret_value() for key in read.api_keys] == ["one", "two"]
    assert ApiSettings(redis_url="redis://:own@redis:6379/0").redis_url == "redis://:own@redis:6379/0"
    sentinel = "redis+sentinel://user@a:1,b:2/images?sentinel_password=x"
    named = ApiSettings(redis_url=sentinel).redis_url
    assert named == "redis+sentinel://user:p%40ss%3Aword%2F@a:1,b:2/images?sentinel_password=x"


def test_sizes_are_read_as_height_and_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOURSTEP_SIZES", "1024x1024, 832x1216")
    assert WorkerSettings().sizes == ((1024, 1024), (1216, 832))


@pytest.mark.parametrize("sizes", ["1024", "64x", "0x64", "64x64,64x64", "64×64"])
def test_other_sizes_are_refused(monkeypatch: pytest.MonkeyPatch, sizes: str) -> None:
    monkeypatch.setenv("FOURSTEP_SIZES", sizes)
    with pytest.raises(ValidationError) as refused:
        WorkerSettings()
    assert explain(refused.value).startswith("FOURSTEP_SIZES: ")


def test_a_caller_may_not_have_more_webhooks_under_way_than_it_leaves_to_others() -> None:
    most = MOST_AT_ONCE // 2
    assert ApiSettings(max_webhooks=most).max_webhooks == most
    with pytest.raises(ValidationError, match=f"less than or equal to {most}"):
        ApiSettings(max_webhooks=most + 1)
