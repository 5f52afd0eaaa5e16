"""The short form of ``python -m tests.chaos.failover``."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.chaos.failover import SCENARIOS, failover


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["cluster", "old-primary"])
async def test_calls_outlive_their_primary(name: str, tmp_path: Path) -> None:
    verdict = await failover(SCENARIOS[name], tmp_path, images=60)
    assert verdict.holds, json.dumps(asdict(verdict), indent=2)
    assert verdict.acknowledged_images >= 60
