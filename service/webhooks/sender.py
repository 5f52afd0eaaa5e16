"""Sends webhooks, signed after the Standard Webhooks specification, until they arrive or are given up."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import urlsplit

import httpcore
from pydantic_core import to_json
from redis.asyncio import Redis
from redis.exceptions import RedisError
from standardwebhooks import Webhook as Signature

from jobs.metrics import ApiMetrics
from jobs.models import JobState, WebhookTarget
from jobs.queue.job_client import JobClient
from jobs.queue.webhook_stream import Webhook, WebhookStream
from jobs.settings import ApiSettings
from service.model_catalogue import ModelCatalogue
from service.schemas.job_response import JobResponse
from service.webhooks.addresses import fault_of
from service.webhooks.public_network import PublicNetwork
from service.webhooks.signing import signing_secret

PAUSES_S = (30.0, 120.0, 600.0, 1800.0, 3600.0)
"""Seconds from the begin of an attempt to the next one; the one after the last pause is the last."""

ATTEMPT_S = 15.0
"""Seconds that an attempt may take. Shorter than any pause, or two processes would send at once."""

MOST_AT_ONCE = 256
"""Attempts under way in one process. A caller whose receivers hang takes its own part of them, at most half."""

POLL_S = 0.5
GONE = 410

log = logging.getLogger(__name__)


class NotSentError(Exception):
    """The reason why an attempt failed; `final` when another could not succeed."""

    def __init__(self, reason: str, final: bool = False) -> None:
        super().__init__(reason)
        self.final = final


class WebhookSender:
    """Reads the ends of jobs of all models and sends each to its target; any number of API processes share the work."""

    def __init__(self, redis: Redis, catalogue: ModelCatalogue, settings: ApiSettings, metrics: ApiMetrics) -> None:
        assert settings.webhook_secret is not None
        self._redis = redis
        self._catalogue = catalogue
        self._secret = settings.webhook_secret
        self._private, self._each, self._ttl_s = settings.webhook_private, settings.max_webhooks, settings.result_ttl_s
        self._count: Callable[[str], None] = lambda outcome: metrics.webhooks.labels(outcome).inc()
        network = None if self._private else PublicNetwork()
        # No connection is kept: each attempt looks the host up for itself.
        self._client = httpcore.AsyncConnectionPool(
            max_connections=MOST_AT_ONCE, max_keepalive_connections=0, network_backend=network
        )
        self._sending: dict[asyncio.Task[None], str] = {}
        """The attempts under way, each with its caller."""

    async def run(self) -> None:
        """Send what is due until cancelled; what is under way then is sent again by whoever comes next."""
        try:
            while True:
                await self._start_due()
                await asyncio.sleep(POLL_S)
        finally:
            for sending in self._sending:
                sending.cancel()
            await asyncio.gather(*self._sending, return_exceptions=True)
            await self._client.aclose()

    async def _start_due(self) -> None:
        try:
            for queue in await self._catalogue.queues():
                if (room := MOST_AT_ONCE - len(self._sending)) <= 0:
                    return
                stream = WebhookStream(self._redis, queue.model)
                under_way = Counter(self._sending.values())
                for webhook in await stream.take(PAUSES_S, room, self._each, under_way):
                    sending = asyncio.create_task(self._settle(queue, stream, webhook))
                    self._sending[sending] = webhook.caller
                    sending.add_done_callback(self._sending.pop)
        except RedisError as error:
            log.warning("no webhooks are sent while redis does not answer", extra={"error": str(error)})

    async def _settle(self, queue: JobClient, stream: WebhookStream, webhook: Webhook) -> None:
        """Make one attempt. An error of Redis, or a death of this process, leaves the webhook for the next one."""
        try:
            try:
                await self._attempt(queue, webhook)
            except NotSentError as error:
                given_up = error.final or webhook.attempts > len(PAUSES_S)
                self._count("given_up" if given_up else "failed")
                about = {"job_id": webhook.job_id, "outcome": "given_up" if given_up else "failed", "error": str(error)}
                log.warning("a webhook was not sent", extra=about)
                if given_up:
                    await stream.give_up(webhook, str(error))
            else:
                self._count("sent")
                await stream.sent(webhook, self._ttl_s)
        except RedisError as error:
            log.warning("a webhook is sent again later", extra={"job_id": webhook.job_id, "error": str(error)})
        except Exception:
            log.exception("a webhook is sent again later", extra={"job_id": webhook.job_id})

    async def _attempt(self, queue: JobClient, webhook: Webhook) -> None:
        """Send the webhook; NotSentError unless the target answers with success."""
        target = webhook.target
        if target is None:
            raise NotSentError("its record cannot be read", final=True)
        if fault := fault_of(target.url, self._private):
            raise NotSentError(f"its address {fault}", final=True)
        if webhook.attempts > len(PAUSES_S) + 1:
            raise NotSentError("the last attempt did not end", final=True)
        state = await queue.job(webhook.job_id)
        if state is None:
            raise NotSentError("the job is no longer known", final=True)
        try:
            async with asyncio.timeout(ATTEMPT_S):
                status = await self._post(target, webhook, _body(state, webhook, target))
        except TimeoutError as error:
            raise NotSentError(f"no answer within {ATTEMPT_S:g} s") from error
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError) as error:
            raise NotSentError(f"{type(error).__name__}: {error}") from error
        if not 200 <= status < 300:
            raise NotSentError(f"it answered {status}", final=status == GONE)

    async def _post(self, target: WebhookTarget, webhook: Webhook, body: str) -> int:
        """Return the status of the answer, whose body is not read; redirections are not followed."""
        name, now = f"msg_{webhook.job_id}", datetime.now(UTC)
        signature = Signature(signing_secret(self._secret, target.caller)).sign(name, now, body)
        headers: dict[bytes | str, bytes | str] = {
            "Host": urlsplit(target.url).netloc,
            "Content-Type": "application/json",
            "Content-Length": str(len(body.encode())),
            "User-Agent": "fourstep",
            "webhook-id": name,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": signature,
        }
        async with self._client.stream("POST", target.url, headers=headers, content=body.encode()) as answer:
            return answer.status


def _body(state: JobState, webhook: Webhook, target: WebhookTarget) -> str:
    job = JobResponse.of(state, target.base_url).model_dump(mode="json", exclude_none=True)
    return to_json({"type": f"job.{state.status}", "timestamp": webhook.ended.isoformat(), "data": job}).decode()
