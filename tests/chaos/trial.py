"""One trial: real processes, real clients, faults, and then the books are compared."""

import asyncio
import hashlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import httpx

from jobs.testing import redis_servers
from jobs.testing.waiting import SAFETY_NET_S, wait_until
from tests.chaos.calls import Client, Ledger
from tests.chaos.faults import Faults
from tests.chaos.processes import AppendOnlyRedis, Lives
from tests.chaos.proxy import Proxy
from worker.testing import tiny_pipelines

LEASE_S = 2.0
SETTLE_S = 240.0


# What a process may have counted after its last scrape, when it is killed.
UNSCRAPED_IMAGES = 40
UNSCRAPED_ANSWERS = 60


@dataclass
class Verdict:
    """The ends of the acknowledged images, and the processes' counters, summed over their lives.

    A life that is killed takes along what it counted after its last scrape: sums may be below what there was by a few
    for each such death. `stored` counts all images in Redis, also of calls that were never acknowledged.
    """

    seconds: float
    acknowledged_images: int
    completed: int
    honest_errors: dict[str, int]
    lost: int
    double: int
    contradictions: list[str]
    stored: int
    counted_ok: int
    counted_duplicates: int
    redeliveries: int
    worker_deaths: int
    answers: dict[str, int]
    counted_answers: int
    api_deaths: int
    faults: dict[str, int]

    @property
    def counts_agree(self) -> bool:
        """No image is counted that is not stored, and no answer that no client got or missed by a broken connection."""
        answers = sum(count for status, count in self.answers.items() if status[:3].isdigit())
        unheard = self.answers.get("broken", 0) + self.answers.get("gone", 0)
        images_missing = self.stored - self.counted_ok
        answers_missing = answers + unheard - self.counted_answers
        return (
            0 <= images_missing <= UNSCRAPED_IMAGES * self.worker_deaths
            and 0 <= answers_missing <= unheard + UNSCRAPED_ANSWERS * self.api_deaths
        )

    @property
    def holds(self) -> bool:
        broken = self.lost or self.double or self.contradictions or "500 internal-error" in self.answers
        return not broken and self.counts_agree

    def as_json(self) -> dict:
        return asdict(self) | {"counts_agree": self.counts_agree, "holds": self.holds}


async def trial(
    folder: Path, images: int, kill_every_s: float, program: Sequence[str], pause_s: float, clients: int = 16
) -> Verdict:
    """Have `images` acknowledged under the faults of `program`, a worker being killed every `kill_every_s` seconds."""
    began, ledger = time.monotonic(), Ledger()
    async with _service(folder) as faults:
        keeping = [asyncio.create_task(lives.keep()) for lives in (*faults.workers, *faults.apis)]
        urls = [api.url for api in faults.apis]
        await _ready(urls)
        calling = [asyncio.create_task(Client(number, urls, ledger, images).run()) for number in range(1, clients + 1)]
        hurting = [
            asyncio.create_task(faults.often(kill_every_s)),
            asyncio.create_task(faults.each(program, pause_s, lambda: ledger.images / images)),
        ]
        await asyncio.gather(*calling)
        await hurting[1]
        hurting[0].cancel()
        ends = await _ends(urls, ledger)
        await _idle(faults.redis)
        async with httpx.AsyncClient(trust_env=False, timeout=SAFETY_NET_S) as http:
            for lives in (*faults.workers, *faults.apis):
                await wait_until(partial(lives.scrape, http))
        for task in keeping:
            task.cancel()
        return _verdict(time.monotonic() - began, ledger, ends, faults)


@asynccontextmanager
async def _service(folder: Path) -> AsyncIterator[Faults]:
    model = tiny_pipelines.save(folder / "tiny-student")
    redis = AppendOnlyRedis(folder / "redis")
    proxy = Proxy(redis_servers.free_port(), redis.port)
    await proxy.start()
    shared = {"FOURSTEP_REDIS_URL": f"redis://127.0.0.1:{proxy.port}/0", "OMP_NUM_THREADS": "1"}
    workers, apis = [], []
    for number in range(3):
        port = redis_servers.free_port()
        own = {"MODEL": str(model), "METRICS_PORT": str(port), "LEASE_S": str(LEASE_S), "DEVICE": "cpu"}
        settings = shared | {f"FOURSTEP_{name}": value for name, value in own.items()}
        workers.append(Lives(f"worker-{number}", "worker", settings, port, folder))
    for number in range(2):
        port = redis_servers.free_port()
        settings = shared | {"FOURSTEP_PORT": str(port), "FOURSTEP_MAX_QUEUED_IMAGES": "200"}
        apis.append(Lives(f"api-{number}", "api", settings, port, folder))
    try:
        yield Faults(redis, proxy, workers, apis)
    finally:
        for lives in (*workers, *apis):
            lives.stop()
        await proxy.stop()
        redis.stop()


async def _ready(urls: list[str]) -> None:
    async with httpx.AsyncClient(trust_env=False) as http:
        for url in urls:
            await wait_until(partial(_answers, http, f"{url}/readyz"))


async def _answers(http: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await http.get(url)).status_code == 200
    except httpx.TransportError:
        return False


@dataclass
class End:
    """The end of a job: its images' hashes by index, and its failures' reasons by index; None when it is unknown."""

    images: dict[int, str]
    failures: dict[int, str]


async def _ends(urls: list[str], ledger: Ledger) -> dict[str, End | None]:
    """Return the end of every acknowledged job; those that have none within SETTLE_S seconds are left out."""
    ends: dict[str, End | None] = {}
    jobs = iter(ledger.jobs)

    async def look(http: httpx.AsyncClient, url: str) -> None:
        for job_id in jobs:
            with suppress(TimeoutError):
                async with asyncio.timeout(SETTLE_S):
                    ends[job_id] = await _settled(http, f"{url}/jobs/{job_id}")

    async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
        await asyncio.gather(*(look(http, url) for url in urls * 4))
    return ends


async def _settled(http: httpx.AsyncClient, job_url: str) -> End | None:
    while True:
        with suppress(httpx.TransportError):
            answer = await http.get(job_url)
            if answer.status_code == 404:
                return None
            if answer.status_code == 200 and answer.json()["status"] not in ("queued", "running"):
                return await _end(http, answer.json())
        await asyncio.sleep(0.2)


async def _end(http: httpx.AsyncClient, job: dict) -> End:
    images = {}
    for image in job["images"]:
        data = (await http.get(image["url"])).content
        if hashlib.sha256(data).hexdigest() == image["sha256"]:
            images[image["index"]] = image["sha256"]
    return End(images, {failure["index"]: failure["reason"] for failure in job["failures"]})


async def _idle(redis: AppendOnlyRedis) -> None:
    """Wait until no task is left in any stream: by then every second settlement has been refused."""
    with redis.client as client:
        await wait_until(lambda: not any(client.xlen(key) for key in client.keys("*:tasks")), SETTLE_S)


def _verdict(seconds: float, ledger: Ledger, ends: dict[str, End | None], faults: Faults) -> Verdict:
    completed, lost, double, errors = 0, 0, 0, Counter[str]()
    for job in ledger.jobs.values():
        end = ends.get(job.id)
        for index in range(len(job.seeds)):
            if end is None or (index not in end.images and index not in end.failures):
                lost += 1
                continue
            completed += index in end.images
            double += index in end.images and index in end.failures
            errors.update([end.failures[index]] if index in end.failures else [])
            earlier = ledger.shown.get((job.id, index))
            if earlier is not None and earlier != end.images.get(index):
                ledger.contradictions.append(f"image {index} of {job.id} was answered and is another now")
    counts = sum((lives.counts for lives in (*faults.workers, *faults.apis)), Counter[str]())
    return Verdict(
        seconds=round(seconds, 1),
        acknowledged_images=ledger.images,
        completed=completed,
        honest_errors=dict(errors),
        lost=lost,
        double=double,
        contradictions=ledger.contradictions,
        stored=_stored(faults.redis),
        counted_ok=counts["fourstep_images_total/ok"],
        counted_duplicates=counts["fourstep_images_total/duplicate"],
        redeliveries=counts["fourstep_redeliveries_total"],
        worker_deaths=sum(lives.deaths for lives in faults.workers),
        answers=dict(ledger.statuses),
        counted_answers=sum(
            count for name, count in counts.items() if name.startswith("fourstep_requests_total//generate/")
        ),
        api_deaths=sum(lives.deaths for lives in faults.apis),
        faults=dict(faults.done),
    )


def _stored(redis: AppendOnlyRedis) -> int:
    """Images that Redis holds as made."""
    with redis.client as client:
        jobs = list(client.scan_iter("*:job:*", count=1000))
        return sum(
            value.startswith(b"result ")
            for job in jobs
            for name, value in client.hgetall(job).items()
            if name.startswith(b"image:")
        )
