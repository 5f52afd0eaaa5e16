"""``GET /metrics``: the metrics of the API process, and those of the queue, read from Redis at this moment."""

from fastapi import APIRouter
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from redis.exceptions import RedisError

from jobs.queue.callers.usage import read_usage
from jobs.queue.webhook_stream import WebhookStream
from service.context import ApiContext, Context

OVERDUE_S = 5.0
"""Seconds after which a webhook that is due waits for others: a sender that has room looks far more often."""

router = APIRouter(tags=["metrics"])


@router.get("/metrics", response_class=Response, responses={200: {"content": {CONTENT_TYPE_LATEST: {}}}})
async def metrics(context: Context) -> Response:
    """Prometheus text format."""
    await _read_queue_gauges(context)
    return Response(generate_latest(context.registry), media_type=CONTENT_TYPE_LATEST)


async def _read_queue_gauges(context: ApiContext) -> None:
    about_models = (context.metrics.model_versions, context.metrics.webhooks_waiting)
    gauges = (context.metrics.queue_images, context.metrics.inflight_images, context.metrics.workers)
    for gauge in (*gauges, *about_models, context.metrics.usage_images, context.metrics.usage_seconds):
        gauge.clear()
    context.metrics.redis_up.set(0)
    context.metrics.redis_writable.set(0)
    try:
        memory = await context.redis.info("memory")
        context.metrics.redis_up.set(1)
        context.metrics.redis_writable.set(await context.catalogue.is_writable())
        context.metrics.redis_memory.set(memory["used_memory"])
        context.metrics.redis_memory_limit.set(memory["maxmemory"])
        for model in await context.catalogue.read():
            queued, inflight = await model.queue.depth()
            for gauge, value in zip(gauges, (queued, inflight, len(model.workers)), strict=True):
                gauge.labels(model=model.card.name).set(value)
            for client, usage in (await read_usage(context.redis, model.card.name)).items():
                labels = {"key": client[:8], "model": model.card.name}
                context.metrics.usage_images.labels(**labels).set(usage.images)
                context.metrics.usage_seconds.labels(**labels).set(usage.work_s)
            versions = {lease.card.sha256 for lease in model.workers}
            context.metrics.model_versions.labels(model=model.card.name).set(len(versions))
        if context.settings.webhook_secret:
            for queue in await context.catalogue.queues():
                overdue = await WebhookStream(context.redis, queue.model).overdue(OVERDUE_S)
                context.metrics.webhooks_waiting.labels(model=queue.model).set(overdue)
    except RedisError:
        return  # without Redis the queue's gauges are absent, which alerts can detect; the other metrics are valid
