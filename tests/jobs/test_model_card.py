"""Cards that workers of other versions have announced can be read and are shown whole."""

import json

import pytest

from jobs.models import ModelCard
from jobs.testing.samples import sample_card

DEVICE = {"device": "cpu", "dtype": "float32"}


@pytest.mark.parametrize("settings", [DEVICE, DEVICE | {"max_batch": 8, "of_another_version": [1, "two"]}])
def test_settings_of_another_version_are_read_and_kept(settings: dict[str, object]) -> None:
    announced = json.loads(sample_card().model_dump_json()) | {"settings": settings}
    card = ModelCard.model_validate_json(json.dumps(announced))
    assert card.settings.model_dump(exclude_unset=True) == settings
