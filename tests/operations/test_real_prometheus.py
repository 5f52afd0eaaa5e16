"""A real Prometheus that scrapes a real `fourstep up` has data for every panel."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import yaml

from tests.bundled.test_up import answers, start_up
from tests.bundled.test_up import wait_until as wait_for
from tests.operations.expressions import RULES
from tests.operations.live_panels import Stack


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.needs("prometheus")
def test_every_panel_has_data_under_load(tmp_path: Path, free_port: Callable[[], int]) -> None:
    api, worker, prometheus = free_port(), free_port(), free_port()
    configuration = yaml.safe_load(RULES.with_name("prometheus.yml").read_text())
    configuration["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    configuration["rule_files"] = [str(RULES)]
    for job, port in zip(configuration["scrape_configs"][:2], (api, worker), strict=True):
        del job["dns_sd_configs"]
        job["static_configs"] = [{"targets": [f"127.0.0.1:{port}"]}]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    up, url = start_up(api, worker)
    command = [
        "prometheus",
        f"--config.file={tmp_path / 'prometheus.yml'}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{prometheus}",
    ]
    scraper = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        address = f"http://127.0.0.1:{prometheus}"
        wait_for(lambda: answers(f"{address}/-/ready") == 200, "scraping", 20)
        with httpx.Client(timeout=60, trust_env=False) as client:
            stack = Stack(client, url, address)
            assert stack.fill_every_panel(seconds=150) > 40
            # The Redis that `fourstep up` brings has no limit of memory to come near.
            assert stack.check_rules(seconds=30, without=("FourstepRedisMemory",)) > 20
    finally:
        for process in (scraper, up):
            process.terminate()
            process.wait(timeout=20)
