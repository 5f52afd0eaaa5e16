"""The short form of ``make chaos``."""

import json
from pathlib import Path

import pytest

from tests.chaos.faults import IN_SHORT
from tests.chaos.trial import trial


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_every_acknowledged_image_has_one_honest_end(tmp_path: Path) -> None:
    verdict = await trial(tmp_path, images=240, kill_every=15, program=IN_SHORT, pause_s=0.2)
    assert verdict.holds, json.dumps(verdict.as_json(), indent=2)
    assert verdict.acknowledged_images >= 240
    assert verdict.completed > 180
    assert len(verdict.injected) >= len(IN_SHORT)
