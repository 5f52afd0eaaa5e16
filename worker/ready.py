"""`python -m worker.ready`: exit status 0 when the worker of this container serves, by its own metrics."""

import sys

import httpx
from prometheus_client.parser import text_string_to_metric_families

from jobs.settings import WorkerSettings

TIMEOUT_S = 2.0
WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}


def is_ready(settings: WorkerSettings) -> bool:
    """Whether a worker answers on the metrics port and has announced its warm model."""
    host = WILDCARDS.get(settings.metrics_host, settings.metrics_host)
    try:
        answer = httpx.get(f"http://{host}:{settings.metrics_port}/metrics", timeout=TIMEOUT_S, trust_env=False)
    except httpx.HTTPError:
        return False
    samples = [sample for family in text_string_to_metric_families(answer.text) for sample in family.samples]
    return any(sample.name == "fourstep_build_info" and sample.labels.get("model") for sample in samples)


if __name__ == "__main__":
    sys.exit(0 if is_ready(WorkerSettings()) else 1)
