"""`python -m tests.chaos.failover`: Redis loses its primary under load, behind Sentinel and in a Cluster.

Clients call two copies of the API with two workers. When half of the images are acknowledged, the primary is killed, or
stopped until another one has its place and then let go on: it takes writes until Sentinel tells it better. The judge of
`make chaos` reads the answers. A replica follows with a delay: jobs that nobody knows any more are counted as lost, and
images that were made a second time as set back. Exit code 1 when the judge finds another fault, or when anything is
lost or set back in a scenario that may lose nothing.
"""

import argparse
import asyncio
import json
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from jobs.queue.keys import ModelKeys
from jobs.testing import redis_servers
from jobs.testing.redis_servers import Failover
from jobs.testing.waiting import wait_until
from tests.chaos.calls import Client
from tests.chaos.ends import ends_of
from tests.chaos.history import History
from tests.chaos.judge import faults_of, honest_errors
from tests.chaos.parts.processes import Lives
from worker.testing import tiny_pipelines

MODEL = "tiny-student"
LEASE_S = 2.0

# As docs/reliability.md advises: a primary without replicas takes no writes.
GUARDED = "min-replicas-to-write 1\nmin-replicas-max-lag 10"


@dataclass(frozen=True)
class Scenario:
    """The servers, what befalls their primary, and whether all that was acknowledged must outlive it."""

    fault: str
    servers: Callable[[Path], AbstractContextManager[Failover]]
    strikes: Callable[[Failover], None]
    lasting: bool


def _kill(servers: Failover) -> None:
    servers.kill_primary()


def _stop_until_replaced(servers: Failover) -> None:
    """Stop the primary for as long as it takes to replace it; it then knows of nothing."""
    servers.primary.send_signal(signal.SIGSTOP)
    servers.watch()


SCENARIOS = {
    "sentinel": Scenario(
        "primary behind Sentinel kill -9", lambda folder: redis_servers.sentinel(folder, replicas=2), _kill, True
    ),
    "old-primary": Scenario(
        "old primary that takes writes again",
        lambda folder: redis_servers.sentinel(folder, replicas=2),
        _stop_until_replaced,
        False,
    ),
    "guarded-old-primary": Scenario(
        "old primary that refuses writes without replicas",
        lambda folder: redis_servers.sentinel(folder, replicas=2, config=GUARDED),
        _stop_until_replaced,
        False,  # what had reached it before it learned that its replicas were gone
    ),
    "cluster": Scenario(
        "Cluster node kill -9",
        lambda folder: redis_servers.cluster_with_replica(folder, ModelKeys(MODEL).tasks),
        _kill,
        True,
    ),
}


@dataclass(frozen=True)
class Verdict:
    """The judge's faults, and the images that the change of primary cost: those of jobs that nobody knows any more, and
    those that were answered and then made again, with other bits.
    """

    fault: str
    calls: int
    ends: int
    acknowledged_images: int
    completed: int
    honest_errors: dict[str, int]
    lost: int
    set_back: int
    may_lose: bool
    answers: dict[str, int]
    wrong: list[str]

    @property
    def holds(self) -> bool:
        return not self.wrong and (self.may_lose or not self.lost + self.set_back)


async def failover(scenario: Scenario, folder: Path, images: int, clients: int = 6) -> Verdict:
    """Have `images` acknowledged, with the scenario's fault in their midst."""
    history = History()
    with scenario.servers(folder / "redis") as servers, _service(folder, servers.url) as (workers, apis):
        keeping = [asyncio.create_task(lives.keep()) for lives in (*workers, *apis)]
        await wait_until(lambda: all(lives.serving for lives in (*workers, *apis)))
        urls = [api.url for api in apis]
        calling = [asyncio.create_task(Client(number, urls, history, images).run()) for number in range(2, 2 + clients)]
        await wait_until(lambda: history.images >= images / 2)
        scenario.strikes(servers)
        await wait_until(servers.promoted)
        servers.primary.send_signal(signal.SIGCONT)
        await asyncio.gather(*calling)
        ends = await ends_of(urls, history)
        for task in keeping:
            task.cancel()
    lost = {job for job in history.jobs if ends.get(job) is None}
    kept = History([answer for answer in history.answers if answer.job not in lost])
    wrong = faults_of(kept, ends)
    set_back = {fault for fault in wrong if fault.endswith("has been two images")}
    return Verdict(
        scenario.fault,
        history.calls,
        sum(end is not None for end in ends.values()),
        history.images,
        sum(len(end.images) for end in ends.values() if end),
        honest_errors(kept, ends),
        sum(len(history.jobs[job]) for job in lost),
        len(set_back),
        not scenario.lasting,
        dict(Counter(f"{answer.status} {answer.reason}".strip() for answer in history.answers)),
        [fault for fault in wrong if fault not in set_back],
    )


@contextmanager
def _service(folder: Path, redis_url: str) -> Iterator[tuple[list[Lives], list[Lives]]]:
    model = tiny_pipelines.save(folder / MODEL)
    shared = {"FOURSTEP_REDIS_URL": redis_url, "OMP_NUM_THREADS": "1"}
    own = {"MODEL": str(model), "LEASE_S": str(LEASE_S), "DEVICE": "cpu", "CPU_RUNTIME": "torch"}
    workers = [_lives(f"worker-{number}", "worker", "METRICS_PORT", own, shared, folder) for number in range(2)]
    apis = [_lives(f"api-{number}", "api", "PORT", {}, shared, folder) for number in range(2)]
    try:
        yield workers, apis
    finally:
        for lives in (*workers, *apis):
            lives.stop()


def _lives(name: str, kind: str, port_of: str, own: dict[str, str], shared: dict[str, str], folder: Path) -> Lives:
    port = redis_servers.free_port()
    settings = {f"FOURSTEP_{setting}": value for setting, value in (own | {port_of: str(port)}).items()}
    return Lives(name, kind, shared | settings, port, folder)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.failover", description=__doc__.splitlines()[0])
    parser.add_argument("scenarios", nargs="*", default=[], metavar="|".join(SCENARIOS), help="all without any")
    parser.add_argument("--images", type=int, default=150)
    parser.add_argument("--folder", type=Path, help="where logs are kept; a temporary folder without it")
    parser.add_argument("--out", type=Path, help="where the verdicts are written as JSON")
    arguments = parser.parse_args()
    verdicts = []
    with tempfile.TemporaryDirectory(prefix="fourstep-failover-") as temporary:
        for name in arguments.scenarios or SCENARIOS:
            folder = (arguments.folder or Path(temporary)) / name
            folder.mkdir(parents=True)
            verdicts.append(asyncio.run(failover(SCENARIOS[name], folder, arguments.images)))
    report = json.dumps([asdict(verdict) | {"holds": verdict.holds} for verdict in verdicts], indent=2) + "\n"
    sys.stdout.write(report)
    if arguments.out:
        arguments.out.write_text(report)
    return 0 if all(verdict.holds for verdict in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
