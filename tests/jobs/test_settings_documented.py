"""The page of settings has every setting."""

from pathlib import Path

import pytest

from jobs.settings import PREFIX, ApiSettings, WorkerSettings

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "settings.md").read_text()


@pytest.mark.parametrize("kind", [ApiSettings, WorkerSettings])
def test_every_setting_stands_on_its_page_with_its_meaning(kind: type) -> None:
    for name, field in kind.model_fields.items():
        assert f"| `{PREFIX}{name.upper()}` |" in PAGE
        assert f"| {field.description} |" in PAGE
