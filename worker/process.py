"""Run one worker process from start to stop: the engine's process, metrics, queue, signals."""

import asyncio
import logging
import os
import signal
import sys
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server

from jobs.image_store import ImageStore, ImageStoreError, open_image_store
from jobs.metrics import WorkerMetrics
from jobs.queue.connection import follow_primary, open_redis
from jobs.queue.model_registry import worker_prefix
from jobs.queue.worker_queue import WorkerQueue
from jobs.settings import WorkerSettings
from jobs.structured_logging import fresh_line
from jobs.tracing import configure_tracing, send_last_spans
from worker.consumer import Consumer
from worker.engine.outcomes import Measured
from worker.engine_process.client import EngineClient, EngineProcess
from worker.engine_process.messages import Ready
from worker.errors import EngineEndedError, StartFailedError
from worker.results import ResultWriter

log = logging.getLogger(__name__)

SHUTDOWN_S = 5.0
"""Seconds after SIGTERM at which unfinished images are left to the workers that take over their leases."""


async def run(settings: WorkerSettings, redis_url: str, load_model: Callable[..., Any] | None = None) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit code: 0, or 1 after a crash. Raises StartFailedError.

    The engine runs in a child process, which loads the model, by default with worker.model_folder.loading.load.
    """
    engine = EngineProcess(settings, load_model)
    try:
        configure_tracing(settings.traces_url, "fourstep-worker")
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        ProcessCollector(namespace="fourstep_engine", pid=lambda: engine.pid, registry=registry)
        metrics = WorkerMetrics(registry)
        engine.measure = partial(observe, metrics)
        _serve_metrics(settings.metrics_host, settings.metrics_port, registry)
        engine.start()
        ready = await _ready(engine, stop)
        return 0 if ready is None else await _serve(settings, redis_url, stop, engine, ready, metrics)
    finally:
        engine.end()
        print(fresh_line(sys.stderr), end="", file=sys.stderr, flush=True)


async def _ready(engine: EngineClient, stop: asyncio.Event) -> Ready | None:
    """Return what the engine serves, once it does; None when `stop` was set before."""
    starting = asyncio.wrap_future(engine.ready)
    await _first(starting, stop)
    if not starting.done():
        return None
    try:
        return starting.result()
    except EngineEndedError as error:
        raise StartFailedError(str(error)) from error


async def _serve(
    settings: WorkerSettings,
    redis_url: str,
    stop: asyncio.Event,
    engine: EngineClient,
    ready: Ready,
    metrics: WorkerMetrics,
) -> int:
    card = ready.card
    metrics.build.info(_build_info(ready))
    redis = open_redis(redis_url)
    queue = WorkerQueue(redis, card.name)
    result_writer = ResultWriter(
        queue,
        card,
        metrics,
        torch_version=ready.torch,
        ttl_s=settings.result_ttl_s,
        embed_recipe=settings.embed_recipe,
        mark_generated=settings.mark_generated,
        store=_image_store(settings),
    )
    worker_id = worker_prefix(os.getpid()) + uuid.uuid4().hex[:8]
    consumer = Consumer(queue, worker_id, engine, result_writer, metrics, settings.lease_s)
    log.info("serving %s (%s) as %s on %s", card.name, card.sha256[:12], worker_id, card.settings.device)
    following = asyncio.create_task(follow_primary(redis))
    try:
        return await _until_stopped(consumer, stop)
    finally:
        following.cancel()
        result_writer.close()
        send_last_spans()
        await redis.aclose()


async def _until_stopped(consumer: Consumer, stop: asyncio.Event) -> int:
    serving = asyncio.create_task(consumer.run(stop))
    await _first(serving, stop)
    try:
        await asyncio.wait_for(serving, SHUTDOWN_S)
    except TimeoutError:
        log.warning("not finished %.0f s after the signal: leaving the rest to other workers", SHUTDOWN_S)
    except ExceptionGroup as failed:
        if ends := failed.subgroup(EngineEndedError):
            log.error("the worker ends, and its leases with it: %s", ends.exceptions[0])
        else:
            log.exception("the worker failed")
        return 1
    return 0


async def _first(future: asyncio.Future, stop: asyncio.Event) -> None:
    """Wait until `future` is done or `stop` is set."""
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({future, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()


def _image_store(settings: WorkerSettings) -> ImageStore | None:
    try:
        return open_image_store(settings.image_store)
    except ImageStoreError as error:
        raise StartFailedError(f"FOURSTEP_IMAGE_STORE: {error}") from error


def _serve_metrics(host: str, port: int, registry: CollectorRegistry) -> None:
    if port:
        try:
            start_http_server(port, host, registry)
        except OSError as error:
            raise StartFailedError(
                f"FOURSTEP_METRICS_PORT: cannot listen on {host}:{port}: {error.strerror}"
            ) from error


def _build_info(ready: Ready) -> dict[str, str]:
    card = ready.card
    return {
        "version": card.version,
        "model": card.name,
        "model_sha": card.sha256,
        "torch": ready.torch,
        "device": card.settings.device,
    }


def observe(metrics: WorkerMetrics, measured: Measured) -> None:
    """Enter the cost of one run of a stage into `metrics`."""
    metrics.stage_duration.labels(measured.stage).observe(measured.seconds)
    if measured.stage == "denoise_step":
        metrics.batch_size.observe(measured.rows)
    if measured.gap is not None:
        metrics.step_gap.observe(measured.gap)
    if measured.replayed:
        metrics.graph_replays.labels(measured.rows + measured.padding).inc()
    if measured.graph_miss:
        metrics.graph_misses.labels(measured.graph_miss).inc()
    metrics.batch_padding.inc(measured.padding)
    metrics.prompt_cache_hits.inc(measured.cached)
