"""Runs the API: one process, one port."""

import uvicorn

from jobs.settings import ApiSettings
from jobs.structured_logging import configure_logging
from jobs.tracing import configure_tracing
from service.app import create_app

# Seconds that open calls get to finish after SIGTERM.
GRACEFUL_SHUTDOWN_S = 5


def serve(settings: ApiSettings) -> None:
    """Answer until SIGTERM or SIGINT; ValueError without a Redis address."""
    configure_logging(settings.log_level)
    configure_tracing(settings.traces_url, "fourstep-service")
    uvicorn.run(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,  # requests are logged by their route, without anything a client sent
        server_header=False,
        timeout_graceful_shutdown=GRACEFUL_SHUTDOWN_S,
    )
