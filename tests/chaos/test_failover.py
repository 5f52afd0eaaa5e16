"""The short form of ``python -m tests.chaos.failover``."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.chaos.failover import SCENARIOS, failover


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_calls_outlive_their_primary(tmp_path: Path) -> None:
    verdict = await failover(SCENARIOS["old-primary"], tmp_path, images=60)
    assert verdict.holds, json.dumps(asdict(verdict), indent=2)
    assert verdict.acknowledged_images >= 60
