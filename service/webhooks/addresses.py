"""Addresses that a webhook may be sent to: none that leads back into the operator's own network."""

import ipaddress
from urllib.parse import urlsplit

NAT64 = ipaddress.ip_network("64:ff9b::/96")
GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
"""All of version 6 that is given out; the rest is reserved, wraps version 4 in one way or another, or is local."""

NOT_GIVEN_OUT = (ipaddress.ip_network("3fff::/20"), ipaddress.ip_network("192.88.99.0/24"))
"""Documentation (RFC 9637) and relays of 6to4 (RFC 7526), which Python takes for global."""


def is_public(address: str) -> bool:
    """Return whether the IP address is a public unicast one, also where version 6 wraps version 4."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.is_multicast or ip.teredo:
            return False
        if ip in NAT64:
            return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
        if wrapped := ip.ipv4_mapped or ip.sixtofour:
            return is_public(str(wrapped))
        if ip not in GLOBAL_UNICAST:
            return False
    if any(ip in network for network in NOT_GIVEN_OUT):
        return False
    return ip.is_global and not ip.is_multicast


def fault_of(url: str, private: bool) -> str | None:
    """The reason why no webhook may be sent to `url`, as far as it can be seen without a look at DNS; None without one.

    With `private`, plain HTTP and addresses that are not public are no fault.
    """
    if not url.isascii() or not url.isprintable() or " " in url:
        return "must be an address in printable ASCII"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "must be an address"
    schemes = ("https", "http") if private else ("https",)
    if not host or not _is_host(host) or parts.scheme not in schemes:
        return f"must begin with {' or '.join(f'{scheme}://' for scheme in schemes)} and name a host"
    if parts.username is not None:
        return "must hold no user name or password"
    if not private and _is_ip(host) and not is_public(host):
        return "must be a public address"
    return None


def _is_host(host: str) -> bool:
    """Return whether DNS can be asked for the host: a label has 1 to 63 characters."""
    try:
        host.encode("idna")
    except UnicodeError:
        return False
    return True


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
