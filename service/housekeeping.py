"""End jobs whose deadline passes while no worker serves their model."""

import asyncio
import logging

from redis.exceptions import RedisError

from service.model_catalogue import ModelCatalogue

PAUSE_S = 5.0

log = logging.getLogger(__name__)


async def expire_overdue_forever(catalogue: ModelCatalogue, ttl_s: float) -> None:
    """Settle overdue images of all models every few seconds; jobs that end so are kept for `ttl_s` seconds."""
    while True:
        try:
            for queue in await catalogue.queues():
                await queue.expire_overdue(ttl_s)
        except RedisError:
            pass  # calls say so; what is overdue stays so
        except Exception:
            log.exception("overdue images could not be expired")
        await asyncio.sleep(PAUSE_S)
