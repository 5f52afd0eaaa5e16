"""How every process connects to Redis."""

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff

# Longer than any blocking read below, short enough to notice a hung server.
SOCKET_TIMEOUT_S = 5.0


def open_redis(redis_url: str) -> Redis:
    """A client that answers in bytes and connects on first use; two retries, then redis.exceptions.ConnectionError."""
    return Redis.from_url(
        redis_url,
        socket_timeout=SOCKET_TIMEOUT_S,
        socket_keepalive=True,
        retry=Retry(ExponentialBackoff(cap=0.2, base=0.02), retries=2),
    )
