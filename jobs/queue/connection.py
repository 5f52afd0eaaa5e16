"""Connects to Redis: one server, a group watched by Sentinel, or a Cluster; each also over TLS."""

import asyncio
import re
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, cast
from urllib.parse import quote, urlsplit, urlunsplit

from redis.asyncio import BlockingConnectionPool, Redis, Sentinel
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from jobs.queue.clients.cluster import WholeCluster
from jobs.queue.clients.pipelining import PipeliningRedis
from jobs.queue.keys import NEVER_WRITTEN, ModelKeys

# Longer than any blocking read below, short enough to notice a hung server.
SOCKET_TIMEOUT_S = 5.0
# Further commands wait for a free connection, for at most SOCKET_TIMEOUT_S.
MAX_CONNECTIONS = 64
# For Sentinel and Cluster, where redis-py's pools do not wait but refuse further connections.
MAX_CONNECTIONS_TO_A_NODE = 1024
# A primary that does not know of its replacement takes writes for some ten seconds, all of which are lost.
PRIMARY_CHECK_S = 0.5
# What Redis says when its disk, or its role or number of replicas, lets it write nothing.
UNWRITABLE = ("MISCONF", "READONLY", "You can't write against a read only replica", "NOREPLICAS")

SINGLE, SENTINEL, CLUSTER = ("redis", "rediss", "unix"), "sentinel", "cluster"
SCHEMES = (*SINGLE, "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")
DEFAULT_PORTS = {SENTINEL: 26379, CLUSTER: 6379}


def open_redis(redis_url: str) -> Redis:
    """A client that answers in bytes and connects on first use.

    Its commands raise redis.exceptions.ConnectionError when the connection breaks three times, and TimeoutError of the
    same module when the server does not answer within SOCKET_TIMEOUT_S.

    Addresses (``rediss`` for TLS, its options as query: ``ssl_ca_certs``, ``ssl_certfile``, ``ssl_keyfile``, ...):

    - ``redis://[[user]:password@]host[:port][/db]``, ``unix://[[user]:password@]path``
    - ``redis+sentinel://[[user]:password@]host[:port][,...]/service[/db]``; the credentials are the Redis servers', the
      Sentinels' own are ``sentinel_username`` and ``sentinel_password`` in the query
    - ``redis+cluster://[[user]:password@]host[:port][,...]``

    Raises ValueError for any other address; its text quotes no password.
    """
    check_address(redis_url)
    scheme, _, kind = urlsplit(redis_url).scheme.partition("+")
    common: dict[str, Any] = {
        "socket_timeout": SOCKET_TIMEOUT_S,
        "socket_connect_timeout": SOCKET_TIMEOUT_S,
        "socket_keepalive": True,
        # A broken connection is tried again. A timeout is not: the server has been silent for SOCKET_TIMEOUT_S.
        "retry": Retry(ExponentialBackoff(cap=0.2, base=0.02), retries=2, supported_errors=(RedisConnectionError,)),
    }
    if kind == SENTINEL:
        return _behind_sentinel(redis_url, scheme, common)
    if kind == CLUSTER:
        return _cluster(redis_url, scheme, common)
    pool = BlockingConnectionPool.from_url(
        redis_url, max_connections=MAX_CONNECTIONS, timeout=SOCKET_TIMEOUT_S, **common
    )
    return PipeliningRedis.from_pool(pool)


async def follow_primary(redis: Redis) -> None:
    """Ask Sentinel for the primary all the time, and leave one that has been replaced; ends at once without Sentinel.

    A client alone asks when a connection breaks, and a primary that was cut off or stopped for a while breaks none.
    """
    pool = getattr(redis, "connection_pool", None)
    known = getattr(pool, "master_address", None)
    while isinstance(pool, SentinelConnectionPool):
        with suppress(RedisError, OSError):
            primary = await pool.get_master_address()
            if known not in (None, primary):
                # Also those that went idle since a new connection found the new primary.
                await pool.update_active_connections_for_reconnect()
                await pool.disconnect(inuse_connections=False)
            known = primary
        await asyncio.sleep(PRIMARY_CHECK_S)


def check_address(redis_url: str) -> None:
    """Raise ValueError, quoting no password, when `redis_url` has none of the forms that `open_redis` takes."""
    parts = urlsplit(redis_url)
    if parts.scheme not in SCHEMES:
        raise ValueError(f"the address must begin with one of {', '.join(f'{scheme}://' for scheme in SCHEMES)}")
    kind = parts.scheme.partition("+")[2]
    if kind:
        _hosts(redis_url, kind)
    if kind == SENTINEL and not re.fullmatch("/[^/]+(/[0-9]*)?", parts.path):
        raise ValueError("a Sentinel address ends with the name of its service: redis+sentinel://host:port/service")


def with_password(redis_url: str, password: str) -> str:
    """The address with `password` as the servers' own, unless it has one."""
    parts = urlsplit(redis_url)
    login, _, place = parts.netloc.rpartition("@")
    if ":" in login:
        return redis_url
    return urlunsplit(parts._replace(netloc=f"{login}:{quote(password, safe='')}@{place}"))


async def is_writable(redis: Redis, models: Iterable[str]) -> bool:
    """Return whether Redis takes writes: it deletes keys that never exist, which changes nothing and needs no memory.

    It takes none when it could not write to its disk last time, lacks a replica that it has to have, or is a replica
    itself. Of a Cluster the nodes are asked that hold the registry and the queues of `models`. Raises
    redis.exceptions.RedisError when it does not answer.
    """
    try:
        for key in (NEVER_WRITTEN, *(ModelKeys(model).unused for model in models)):
            await redis.execute_command("DEL", key)  # `delete` would word errors of a Cluster anew
    except ResponseError as error:
        if str(error).startswith(UNWRITABLE):
            return False
        raise
    return True


def _behind_sentinel(redis_url: str, scheme: str, common: dict[str, Any]) -> Redis:
    service, _, database = urlsplit(redis_url).path.strip("/").partition("/")
    options = _options(redis_url, scheme) | common
    login = {name: options.pop(f"sentinel_{name}", None) for name in ("username", "password")}
    shared = {name: value for name, value in options.items() if name.startswith(("socket_", "ssl"))}
    sentinel = Sentinel(_hosts(redis_url, SENTINEL), sentinel_kwargs=shared | login)
    options |= {"db": int(database or 0), "max_connections": MAX_CONNECTIONS_TO_A_NODE}
    return sentinel.master_for(service, redis_class=PipeliningRedis, **options)


def _cluster(redis_url: str, scheme: str, common: dict[str, Any]) -> Redis:
    options = _options(redis_url, scheme) | common
    nodes = [ClusterNode(host, port) for host, port in _hosts(redis_url, CLUSTER)]
    # It has the same commands, though redis-py gives the two no common type.
    return cast(Redis, WholeCluster(startup_nodes=nodes, max_connections=MAX_CONNECTIONS_TO_A_NODE, **options))


def _hosts(redis_url: str, kind: str) -> list[tuple[str, int]]:
    """The hosts and ports of the address, which stand between its credentials and its path."""
    hosts = []
    for place in urlsplit(redis_url).netloc.rpartition("@")[2].split(","):
        try:
            parts = urlsplit(f"//{place}")
            host, port = parts.hostname, parts.port or DEFAULT_PORTS[kind]
        except ValueError:
            host = None
        if not host:
            raise ValueError(f"not a host and port: {place!r}")
        hosts.append((host, port))
    return hosts


def _options(redis_url: str, scheme: str) -> dict[str, Any]:
    """Options in the address's credentials and query, parsed by redis-py; ``ssl`` is set for the `scheme` rediss."""
    parts = urlsplit(redis_url)
    credentials = parts.netloc.rpartition("@")[0]
    options: dict[str, Any] = dict(parse_url(f"{scheme}://{credentials}@host/?{parts.query}"))
    del options["host"]
    if options.pop("connection_class", None) is SSLConnection:
        options["ssl"] = True
    return options
