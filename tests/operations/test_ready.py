"""The health check of a worker's container."""

import subprocess
import sys
from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry, start_http_server

from jobs.metrics import WorkerMetrics
from jobs.settings import WorkerSettings
from worker import ready


def test_a_worker_is_ready_once_it_has_announced_its_model(
    free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, registry = free_port(), CollectorRegistry()
    assert not ready.is_ready("0.0.0.0", port)
    metrics = WorkerMetrics(registry)
    server, thread = start_http_server(port, "127.0.0.1", registry)
    try:
        assert not ready.is_ready("0.0.0.0", port)
        metrics.build.info({"version": "1", "model": "emoji", "torch": "2", "device": "cpu"})
        assert ready.is_ready("0.0.0.0", port)
        monkeypatch.setenv("FOURSTEP_METRICS_PORT", str(port))
        assert subprocess.run([sys.executable, "-m", "worker.ready"]).returncode == 0
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert not ready.is_ready("127.0.0.1", port)
    assert subprocess.run([sys.executable, "-m", "worker.ready"]).returncode == 1


@pytest.mark.parametrize("variables", [{}, {"HOST": "0.0.0.0", "PORT": "9100"}, {"HOST": "", "PORT": ""}])
def test_it_asks_where_the_settings_say(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOST", "PORT"):
        monkeypatch.delenv(f"FOURSTEP_METRICS_{name}", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(f"FOURSTEP_METRICS_{name}", value)
    settings = WorkerSettings()
    assert ready.address() == (settings.metrics_host, settings.metrics_port)


def test_it_imports_no_library() -> None:
    code = "import sys, worker.ready; print({'pydantic', 'httpx', 'prometheus_client', 'torch'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
