"""The FastAPI application."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Security
from fastapi.middleware.cors import CORSMiddleware
from fastapi.security import HTTPBearer
from prometheus_client import CollectorRegistry, ProcessCollector
from redis.asyncio import Redis
from redis.exceptions import RedisError

from jobs.image_store import open_image_store
from jobs.metrics import ApiMetrics
from jobs.queue.connection import follow_primary, open_redis
from jobs.queue.job_events import JobEvents
from jobs.queue.replicas import Replicas
from jobs.settings import ApiSettings
from jobs.tracing import send_last_spans
from jobs.version import fourstep_version
from service.context import ApiContext
from service.housekeeping import expire_overdue_forever
from service.inputs.picture_files import PictureLimits
from service.inputs.source_pictures import SourcePictures
from service.limits.room import Room
from service.limits.stream_count import StreamCount
from service.middleware.api_keys import ApiKeys
from service.middleware.body_limit import BodyLimit
from service.middleware.host_header import OneHost
from service.middleware.metrics_port import MetricsPort
from service.middleware.request_metrics import RequestMetrics
from service.middleware.shutdown import AnswerWhenStopping
from service.model_catalogue import ModelCatalogue
from service.openai import routes as openai
from service.problems import install_problem_handlers, problem_responses
from service.routes import generate, health, images, jobs, metrics, models, pages, usage, webhooks
from service.webhooks.addresses import fault_of

# What pages of other origins may read of an answer's head.
EXPOSED_HEADERS = [
    *("Location", "Retry-After", "RateLimit", "RateLimit-Policy", "X-Should-Retry", "X-Request-Id"),
    *("Fourstep-Id", "Fourstep-Seed", "Fourstep-Warnings"),
]

log = logging.getLogger(__name__)


def create_app(settings: ApiSettings) -> FastAPI:
    """Build the API on the Redis of ``settings.redis_url``; ValueError or ImageStoreError for a wrong address."""
    if settings.redis_url is None:
        raise ValueError("FOURSTEP_REDIS_URL must name the Redis to use, for example redis://127.0.0.1:6379/0")
    for _, url in settings.webhooks:
        if fault := fault_of(url, settings.webhook_private):
            raise ValueError(f"FOURSTEP_WEBHOOKS: an address {fault}")
    redis = open_redis(settings.redis_url)
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    shown = ApiMetrics(registry)
    shown.answer_bytes_limit.set(settings.max_answer_bytes)
    store = open_image_store(settings.image_store)
    replicas = Replicas(redis, settings.redis_replicas) if settings.redis_replicas else None
    catalogue = ModelCatalogue(redis, settings.default_model, settings.model_aliases, store, replicas)
    context = ApiContext(
        settings=settings,
        redis=redis,
        events=JobEvents(redis),
        catalogue=catalogue,
        registry=registry,
        metrics=shown,
        room=Room(settings.max_answer_bytes, shown.answer_bytes, shown.answers_waiting),
        streams=StreamCount(settings.max_event_streams, shown),
        pictures=SourcePictures(catalogue, PictureLimits(settings.max_input_bytes, settings.max_input_pixels)),
        store=store,
    )
    app = FastAPI(
        title="fourstep",
        description="Images from prompts in four network evaluations each.",
        version=fourstep_version(),
        lifespan=_lifespan,
        generate_unique_id_function=lambda route: route.name,
        docs_url=None,  # see service.routes.pages
        redoc_url=None,
        **_documented_security(settings),
    )
    app.state.context = context
    for_pictures = Room(settings.max_answer_bytes, shown.input_bytes, shown.inputs_waiting)
    app.add_middleware(BodyLimit, picture_bytes=settings.max_input_bytes, room=for_pictures)
    app.add_middleware(OneHost)
    app.add_middleware(ApiKeys, keys=settings.api_keys)
    if settings.api_metrics_port:
        app.add_middleware(MetricsPort, port=settings.api_metrics_port)
    app.add_middleware(AnswerWhenStopping)
    if settings.cors_origins:
        _allow_other_origins(app, settings)
    app.add_middleware(RequestMetrics, metrics=context.metrics)
    install_problem_handlers(app)
    for route in (generate, jobs, images, models, openai, webhooks, usage, health, metrics, pages):
        app.include_router(route.router)
    app.mount("/static", pages.PageParts(directory=pages.STATIC_DIR, packages=[pages.SWAGGER_UI]), name="static")
    return app


def _documented_security(settings: ApiSettings) -> dict[str, Any]:
    """Describe API keys in the OpenAPI document; the middleware ApiKeys checks them."""
    if not settings.api_keys:
        return {}
    bearer = HTTPBearer(auto_error=False, description="an API key of this server")
    return {"dependencies": [Security(bearer)], "responses": problem_responses(401, 403)}


def _allow_other_origins(app: FastAPI, settings: ApiSettings) -> None:
    app.add_middleware(
        CORSMiddleware,
        allow_origins=settings.cors_origins,
        allow_methods=["GET", "HEAD", "POST", "DELETE"],
        allow_headers=["*"],  # whatever the page asks for: OpenAI's clients send a dozen headers of their own
        expose_headers=EXPOSED_HEADERS,
    )


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    context: ApiContext = app.state.context
    await _report_redis(context.redis)
    await context.events.start()
    following = asyncio.create_task(follow_primary(context.redis))
    housekeeping = asyncio.create_task(expire_overdue_forever(context.catalogue, context.settings.result_ttl_s))
    webhooks = asyncio.create_task(_webhooks(context)) if context.settings.webhook_secret else None
    yield
    housekeeping.cancel()
    following.cancel()
    if webhooks:
        webhooks.cancel()
        await asyncio.gather(webhooks, return_exceptions=True)
    await asyncio.sleep(0)  # lets calls that were just cancelled add to `cancelling`
    await asyncio.gather(*context.cancelling, return_exceptions=True)
    await context.events.aclose()
    await context.redis.aclose()
    send_last_spans()


async def _webhooks(context: ApiContext) -> None:
    from service.webhooks.sender import WebhookSender  # with an HTTP client, which no other part of the API has

    await WebhookSender(context.redis, context.catalogue, context.settings, context.metrics).run()


async def _report_redis(redis: Redis) -> None:
    try:
        policy = (await redis.info("memory")).get("maxmemory_policy", "noeviction")
    except RedisError as error:
        about = {"error": str(error)}
        log.error("redis does not answer; calls get 503 until it does (see FOURSTEP_REDIS_URL)", extra=about)
        return
    if policy != "noeviction":
        about = {"policy": policy}
        log.error("this redis drops jobs when its memory is full; set maxmemory-policy noeviction", extra=about)
