"""The README's table of settings is the settings."""

from pathlib import Path

import pytest

from jobs.settings import PREFIX, ApiSettings, WorkerSettings

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()


@pytest.mark.parametrize("kind", [ApiSettings, WorkerSettings])
def test_every_setting_stands_in_the_readme_with_its_meaning(kind: type) -> None:
    for name, field in kind.model_fields.items():
        assert f"| `{PREFIX}{name.upper()}` |" in README
        assert f"| {field.description} |" in README
