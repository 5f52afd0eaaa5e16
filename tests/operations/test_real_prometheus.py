"""A real Prometheus that scrapes a real `fourstep up` has data for every panel."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import yaml

from jobs.testing.waiting import SAFETY_NET_S, block_until
from tests.operations.expressions import RULES
from tests.operations.live_panels import Stack
from tests.running import Running, answers, stop


@pytest.mark.slow
@pytest.mark.needs("prometheus")
def test_every_panel_has_data_under_load(fourstep_up: Running, tmp_path: Path, free_port: Callable[[], int]) -> None:
    api, prometheus = int(fourstep_up.url.rpartition(":")[2]), free_port()
    configuration = yaml.safe_load(RULES.with_name("prometheus.yml").read_text())
    configuration["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    configuration["rule_files"] = [str(RULES)]
    for job, port in zip(configuration["scrape_configs"][:2], (api, fourstep_up.metrics_port), strict=True):
        del job["dns_sd_configs"]
        job["static_configs"] = [{"targets": [f"127.0.0.1:{port}"]}]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    command = [
        "prometheus",
        f"--config.file={tmp_path / 'prometheus.yml'}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{prometheus}",
    ]
    scraper = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        address = f"http://127.0.0.1:{prometheus}"
        block_until(lambda: answers(f"{address}/-/ready") == 200, "Prometheus does not answer")
        with httpx.Client(timeout=SAFETY_NET_S, trust_env=False) as client:
            stack = Stack(client, fourstep_up.url, address)
            assert stack.fill_every_panel(seconds=2 * SAFETY_NET_S) > 40
            # The Redis that `fourstep up` brings has no limit of memory to come near.
            assert stack.check_rules(seconds=SAFETY_NET_S, without=("FourstepRedisMemory",)) > 20
    finally:
        stop(scraper)
