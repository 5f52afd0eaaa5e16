"""Runs the API as one process on one port, and on one for scrapers if there is to be one."""

import gc
import socket

import uvicorn

from jobs.settings import ApiSettings
from jobs.structured_logging import configure_logging
from jobs.tracing import configure_tracing
from service.app import create_app
from service.context import ApiContext
from service.middleware.bounded_protocol import bounded_protocol

# Seconds that open calls get to finish after SIGTERM.
GRACEFUL_SHUTDOWN_S = 5


def serve(settings: ApiSettings, graceful_shutdown_s: int = GRACEFUL_SHUTDOWN_S) -> None:
    """Serve until SIGTERM or SIGINT; ValueError without a Redis address, OSError for a port that is taken."""
    configure_logging(settings.log_level)
    configure_tracing(settings.traces_url, "fourstep-service")
    config = configured(settings, graceful_shutdown_s)
    config.load()
    # Imported objects live as long as the process: the collector skips them, as each pass would delay every call.
    gc.collect()
    gc.freeze()
    uvicorn.Server(config).run(sockets(settings))


def sockets(settings: ApiSettings) -> list[socket.socket] | None:
    """The sockets to listen on; None for that of the configuration alone. OSError when one is taken."""
    if settings.api_metrics_port is None:
        return None
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    ports = (settings.port, settings.api_metrics_port)
    return [socket.create_server((settings.host, port), family=family, backlog=2048) for port in ports]


def configured(settings: ApiSettings, graceful_shutdown_s: int = GRACEFUL_SHUTDOWN_S) -> uvicorn.Config:
    """uvicorn's configuration for the API; ValueError without a Redis address."""
    app = create_app(settings)
    context: ApiContext = app.state.context
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        forwarded_allow_ips=settings.forwarded_allow_ips,
        http=bounded_protocol(settings, context.metrics),
        log_config=None,
        access_log=False,  # requests are logged by their route, without anything a client sent
        server_header=False,
        timeout_graceful_shutdown=graceful_shutdown_s,
    )
