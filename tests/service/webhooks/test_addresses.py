"""No webhook leads into the operator's own network."""

import json
import socket
from collections.abc import Callable

import httpcore
import pytest
from redis.asyncio import Redis

from jobs.queue.webhook_stream import WebhookStream
from jobs.settings import ApiSettings
from jobs.testing.samples import MODEL
from jobs.testing.waiting import wait_until
from service.webhooks import addresses, public_network, sender
from service.webhooks.addresses import fault_of, is_public
from tests.service.calls import ASYNC
from tests.service.running_api import running_api
from tests.service.webhooks.receiver import receiving

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

pytestmark = pytest.mark.usefixtures("worker")

PRIVATE = [
    *("127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"),
    *("224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%1", "fc00::1", "ff02::1"),
    *("fec0::1", "::127.0.0.1", "::ffff:0:127.0.0.1", "64:ff9b:1::7f00:1", "::8.8.8.8", "5f00::1", "3fff::1"),
    *("2001:db8::1", "192.88.99.1", "198.18.0.1", "240.0.0.1", "100::1", "fd00:ec2::254"),
    *("::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "2001:0:1::"),
]


@pytest.mark.parametrize("address", PRIVATE)
def test_what_is_not_public(address: str) -> None:
    assert not is_public(address)
    host = f"[{address.partition('%')[0]}]" if ":" in address else address
    assert fault_of(f"https://{host}/", private=False) == "must be a public address"
    assert fault_of(f"https://{host}/", private=True) is None


def test_the_schemes_that_may_be_used_are_named() -> None:
    assert fault_of("ftp://hooks.example/", private=False) == "must begin with https:// and name a host"
    assert fault_of("ftp://hooks.example/", private=True) == "must begin with https:// or http:// and name a host"


@pytest.mark.parametrize("address", ["93.184.215.14", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_what_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        *("https://a..com/", "https://.com/", f"https://{'a' * 64}.com/", f"https://{'a' * 64}/"),
        *("http://hooks.example/", "ftp://hooks.example/", "https:///hook", "hooks.example", "https://a:99999/"),
        *(
            "https://me:secret@hooks.example/",
            "https://hooks.example/a b",
            "https://hooks.example/\r\nX: 1",
            "https://é/",
        ),
    ],
)
async def test_addresses_that_no_call_may_name(settings: ApiSettings, url: str) -> None:
    async with running_api(settings.model_copy(update={"webhook_secret": SECRET})) as api:
        answer = await api.post("/generate", json={"prompt": "a cat", "webhook": url}, headers=ASYNC)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "webhook"


@pytest.mark.parametrize("host", ["a..com", "a" * 64 + ".com"])
async def test_what_is_no_name_is_not_found(host: str) -> None:
    with pytest.raises(httpcore.ConnectError, match="cannot be found"):
        await public_network.PublicNetwork().connect_tcp(host, 443)


@pytest.mark.parametrize(
    "host", ["2130706433", "0x7f000001", "0x7f.1", "127.1", "0177.0.0.1", "0", "::ffff:7f00:1", "localhost"]
)
async def test_no_other_way_to_write_a_private_address_is_connected_to(host: str) -> None:
    """As inet_aton reads them: whole, short, hexadecimal and octal numbers."""
    with pytest.raises(httpcore.ConnectError, match="has no public address"):
        await public_network.PublicNetwork().connect_tcp(host, 443)


async def test_a_name_of_a_private_address_is_not_connected_to(
    redis: Redis, redis_url: str, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "PAUSES_S", (0.05,))
    settings = ApiSettings(redis_url=redis_url, port=free_port(), webhook_secret=SECRET)  # type: ignore[arg-type]
    async with receiving(free_port()) as receiver, running_api(settings) as api:
        url = f"https://localhost:{receiver.port}/"
        await api.post("/generate", json={"prompt": "a cat", "webhook": url}, headers=ASYNC)
        stream = WebhookStream(redis, MODEL)
        await wait_until(stream.given_up)
        ((_, reason),) = await stream.given_up()
    assert reason == "ConnectError: the host has no public address"
    assert receiver.received == []


async def test_a_name_is_looked_up_once_and_its_public_address_is_taken(
    redis_url: str, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host whose owner changes its address between a check and the connection."""
    asked, real = [], socket.getaddrinfo

    def getaddrinfo(host: str, port: int, *arguments: object, **options: object) -> object:
        if host != "rebound.example":
            return real(host, port, *arguments, **options)  # type: ignore[arg-type]
        asked.append(host)
        places = ["10.0.0.1", "127.0.0.1"] if len(asked) == 1 else ["10.0.0.1"]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (place, port)) for place in places]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    # 127.0.0.1 stands for the public address here, and plain HTTP for TLS.
    monkeypatch.setattr(public_network, "is_public", lambda address: address == "127.0.0.1")
    for module in (sender, addresses):
        monkeypatch.setattr(module, "fault_of", lambda url, private: None)
    monkeypatch.setattr("service.webhooks.targets.fault_of", lambda url, private: None)
    settings = ApiSettings(redis_url=redis_url, port=free_port(), webhook_secret=SECRET)  # type: ignore[arg-type]
    async with receiving(free_port()) as receiver, running_api(settings) as api:
        url = f"http://rebound.example:{receiver.port}/hook"
        await api.post("/generate", json={"prompt": "a cat", "webhook": url}, headers=ASYNC)
        await wait_until(lambda: receiver.received)
    assert asked == ["rebound.example"]
    assert receiver.received[0].headers["host"] == f"rebound.example:{receiver.port}"
    assert json.loads(receiver.received[0].body)["type"] == "job.completed"
