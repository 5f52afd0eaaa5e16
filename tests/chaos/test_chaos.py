"""The short form of ``make chaos``."""

from pathlib import Path

import pytest

from tests.chaos.faults import IN_SHORT
from tests.chaos.trial import trial


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_every_acknowledged_image_has_one_honest_end(tmp_path: Path) -> None:
    verdict = await trial(tmp_path, images=80, kill_every_s=3.0, program=IN_SHORT, pause_s=0.2)
    assert verdict.holds, verdict.as_json()
    assert verdict.acknowledged_images >= 80
    assert verdict.completed > 60
    assert len(verdict.injected) >= len(IN_SHORT)
    assert verdict.solo > 0
