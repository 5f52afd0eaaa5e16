"""Requests generated from the API's own OpenAPI document get the answers that it promises."""

import asyncio
import re
import sys
from pathlib import Path

import httpx
import pytest

pytestmark = pytest.mark.usefixtures("worker")

SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")
# A request may fit the document and not the model's sizes or an earlier use of its Idempotency-Key, and a timeout of a
# nanosecond is honestly answered 504: what these two checks say is contract. Any other 5xx is found in the metrics.
EXCLUDED = "positive_data_acceptance,not_a_server_error"
# The fields of a form are all text: a number in the place of a text is none there.
FORMS = """
[[operations]]
include-path-regex = "^/v1/images/(edits|variations)$"
checks.negative_data_rejection.enabled = false
"""


async def attack(api: httpx.AsyncClient, examples: int, folder: Path) -> int:
    """Send generated requests to every operation; returns how many. Notes about failures stay in `folder`."""
    (folder / "schemathesis.toml").write_text(FORMS)
    process = await asyncio.create_subprocess_exec(
        SCHEMATHESIS,
        "run",
        f"{api.base_url}/openapi.json",
        f"--max-examples={examples}",
        f"--exclude-checks={EXCLUDED}",
        "--generation-deterministic",
        "--warnings=off",
        "--no-color",
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output = (await process.communicate())[0].decode()
    assert process.returncode == 0, output
    metrics = (await api.get("/metrics")).text
    assert 'outcome="error"' not in metrics, metrics
    (cases,) = re.findall(r"(\d+) generated", output)
    return int(cases)


@pytest.mark.slow
@pytest.mark.timeout(1200)
async def test_thousands_of_cases(api: httpx.AsyncClient, tmp_path: Path) -> None:
    assert await attack(api, examples=210, folder=tmp_path) >= 3000
