"""Connections to public addresses only."""

import asyncio
import socket
from collections.abc import Iterable

import httpcore
from httpcore import SOCKET_OPTION, AsyncNetworkBackend, AsyncNetworkStream

from service.webhooks.addresses import is_public


class PublicNetwork(AsyncNetworkBackend):
    """Looks a host up once and connects to the public addresses that it has, by number: no second look at DNS could
    give another one. TLS still asks for a certificate of the host's name.
    """

    def __init__(self) -> None:
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 (httpcore's own name)
        local_address: str | None = None,
        socket_options: Iterable[SOCKET_OPTION] | None = None,
    ) -> AsyncNetworkStream:
        failure = httpcore.ConnectError("the host has no public address")
        for address in await _public_addresses(host, port):
            try:
                return await self._network.connect_tcp(address, port, timeout, local_address, socket_options)
            except httpcore.ConnectError as error:
                failure = error
        raise failure

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


async def _public_addresses(host: str, port: int) -> list[str]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no name of DNS"
        raise httpcore.ConnectError(f"the host cannot be found: {reason}") from error
    addresses = dict.fromkeys(str(place[0]) for *_, place in found)
    return [address for address in addresses if is_public(address)]
