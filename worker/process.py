"""Run one worker process from start to stop: metrics, device thread, model, queue, signals."""

import asyncio
import logging
import os
import signal
import socket
import sys
import uuid
from collections.abc import Callable

import torch
from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server

from jobs.image_store import ImageStore, ImageStoreError, open_image_store
from jobs.metrics import WorkerMetrics
from jobs.models import ModelCard
from jobs.queue.connection import open_redis
from jobs.queue.worker_queue import WorkerQueue
from jobs.settings import WorkerSettings
from jobs.tracing import send_last_spans
from worker.consumer import Consumer
from worker.engine.compile_thread import CompileThread
from worker.engine.device_thread import DeviceThread
from worker.engine.engine import Engine
from worker.errors import FolderRefusedError, StartFailedError
from worker.model_folder.loading import LoadedModel, load
from worker.results import ResultWriter
from worker.startup import compiles, model_card, start_engine

log = logging.getLogger(__name__)

SWITCH_INTERVAL_S = 1e-4
"""How long a thread may hold the interpreter while another wants it. Each operation of a step releases it and takes it
back; with Python's default of 5 ms the device would be idle while queue and image files are handled
(docs/performance.md)."""

LAST_STEP_S = 1.0
SHUTDOWN_S = 5.0
"""Seconds after SIGTERM at which unfinished images are left to the workers that take over their leases."""


async def run(settings: WorkerSettings, redis_url: str, load_model: Callable[..., LoadedModel] = load) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit code: 0, or 1 after a crash. Raises StartFailedError.

    Ends the process itself when a signal comes while the device is busy and cannot be interrupted.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    metrics = WorkerMetrics(registry)
    _serve_metrics(settings.metrics_host, settings.metrics_port, registry)
    device, code = DeviceThread(), 0
    compiler = CompileThread(device)
    device.start()
    try:
        engine = await _warm_engine(device, settings, metrics, stop, load_model)
        if engine is not None:
            if compiles(settings, engine.model.network.device):
                compiler.compile(engine)
            code = await _serve(settings, redis_url, stop, device, engine, metrics)
    finally:
        device.stop()
        device.join(LAST_STEP_S)
    if device.is_alive() or compiler.is_alive():
        # One is loading, compiling or in a long step. Finalising the interpreter around it would abort the process.
        os._exit(code)
    return code


async def _warm_engine(
    device: DeviceThread,
    settings: WorkerSettings,
    metrics: WorkerMetrics,
    stop: asyncio.Event,
    load_model: Callable[..., LoadedModel],
) -> Engine | None:
    """Return the engine, ready to serve; None when `stop` was set before."""
    starting = asyncio.wrap_future(device.call(start_engine, settings, metrics, load_model))
    await _first(starting, stop)
    if not starting.done():
        return None
    try:
        return starting.result()
    except FolderRefusedError as error:
        raise StartFailedError(str(error)) from error
    except StartFailedError:
        raise
    except Exception as error:
        log.debug("the engine did not start", exc_info=True)
        raise StartFailedError(f"{type(error).__name__}: {error}") from error


async def _serve(
    settings: WorkerSettings,
    redis_url: str,
    stop: asyncio.Event,
    device: DeviceThread,
    engine: Engine,
    metrics: WorkerMetrics,
) -> int:
    card = model_card(engine, settings)
    metrics.build.info(_build_info(card))
    redis = open_redis(redis_url)
    queue = WorkerQueue(redis, card.name)
    result_writer = ResultWriter(
        queue,
        card,
        metrics,
        ttl_s=settings.result_ttl_s,
        embed_recipe=settings.embed_recipe,
        store=_image_store(settings),
    )
    worker_id = f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}"
    consumer = Consumer(queue, worker_id, card, device, engine, result_writer, metrics, settings.lease_s)
    log.info("serving %s (%s) as %s on %s", card.name, card.sha256[:12], worker_id, card.settings.device)
    try:
        return await _until_stopped(consumer, stop)
    finally:
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
    except ExceptionGroup:
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


def _build_info(card: ModelCard) -> dict[str, str]:
    return {
        "version": card.version,
        "model": card.name,
        "model_sha": card.sha256,
        "torch": torch.__version__,
        "device": card.settings.device,
    }
