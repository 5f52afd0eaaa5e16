"""One trial: real processes, real clients, faults, and then its history is judged and the books are compared."""

import asyncio
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import httpx

from jobs.sampling_contract import SamplingContract
from jobs.testing import redis_servers
from jobs.testing.s3_server import BUCKET, S3Server
from jobs.testing.waiting import SAFETY_NET_S, wait_until
from tests.chaos.calls import Client, body_of
from tests.chaos.ends import SETTLE_S, ends_of, with_models
from tests.chaos.faults import Faults
from tests.chaos.history import End, History
from tests.chaos.judge import faults_of, honest_errors
from tests.chaos.parts.processes import AppendOnlyRedis, Lives
from tests.chaos.parts.proxy import Proxy
from worker.testing import tiny_pipelines

LEASE_S = 2.0
WRONG_CLOCKS_S = {"worker-0": 600.0, "worker-1": -600.0, "api-1": 600.0}
SOLO_IMAGES = 20

# What a process may have counted after its last scrape, when it is killed.
UNSCRAPED_IMAGES = 40
UNSCRAPED_ANSWERS = 60


@dataclass
class Verdict:
    """The faults of the history, and the processes' counters, summed over their lives.

    A life that is killed takes along what it counted after its last scrape: sums may be below what there was by a few
    for each such death. `stored` counts all images in Redis, also of calls that were never acknowledged; `solo` those
    that were made again alone; `calls` the calls with an answer; `ends` the jobs with an end; `injected` the faults of
    each kind.
    """

    seconds: float
    calls: int
    ends: int
    acknowledged_images: int
    completed: int
    honest_errors: dict[str, int]
    wrong: list[str]
    solo: int
    stored: int
    counted_ok: int
    counted_duplicates: int
    redeliveries: int
    worker_deaths: int
    answers: dict[str, int]
    counted_answers: int
    api_deaths: int
    injected: dict[str, int]

    @property
    def counts_agree(self) -> bool:
        """No image is counted that is not stored, and no answer that no client got or missed by a broken connection."""
        answers = sum(count for status, count in self.answers.items() if status.isdigit())
        unheard = self.answers.get("broken", 0) + self.answers.get("gone", 0)
        images_missing = self.stored - self.counted_ok
        answers_missing = answers + unheard - self.counted_answers
        return (
            0 <= images_missing <= UNSCRAPED_IMAGES * self.worker_deaths
            and 0 <= answers_missing <= unheard + UNSCRAPED_ANSWERS * self.api_deaths
        )

    @property
    def holds(self) -> bool:
        """Nothing is wrong, something was compared with its solo image, and each fault has come about."""
        happened = bool(self.injected) and all(self.injected.values())
        return not self.wrong and self.counts_agree and self.solo > 0 and happened

    def as_json(self) -> dict:
        return asdict(self) | {"counts_agree": self.counts_agree, "holds": self.holds}


async def trial(
    folder: Path,
    images: int,
    kill_every: int,
    program: Sequence[str],
    pause_s: float,
    clients: int = 16,
    store: Literal["redis", "s3"] = "redis",
) -> Verdict:
    """Have `images` acknowledged under the faults of `program`; a worker is killed for every `kill_every` made."""
    began, history = time.monotonic(), History()
    async with _service(folder, store) as faults:
        keeping = [asyncio.create_task(lives.keep()) for lives in (*faults.workers, *faults.apis)]
        urls = [api.url for api in faults.apis]
        await all_ready(urls)
        calling = [asyncio.create_task(Client(number, urls, history, images).run()) for number in range(1, clients + 1)]
        hurting = [
            asyncio.create_task(faults.often(kill_every)),
            asyncio.create_task(faults.each(program, pause_s, lambda: history.images / images)),
        ]
        await asyncio.gather(*calling)
        await hurting[1]
        hurting[0].cancel()
        ends = await ends_of(urls, history)
        await _idle(faults.redis)
        with faults.redis.client as client:
            ends = {job: with_models(client, faults.models[0].name, job, end) for job, end in ends.items()}
        async with httpx.AsyncClient(trust_env=False, timeout=SAFETY_NET_S) as http:
            for lives in (*faults.workers, *faults.apis):
                await wait_until(partial(lives.scrape, http))
            verdict = _verdict(time.monotonic() - began, history, ends, faults)
            ends = await _with_solo_images(http, urls[0], history, ends)
        for task in keeping:
            task.cancel()
        solo = sum(len(end.solo) for end in ends.values() if end)
        wrong = faults_of(history, ends) + (_pictures_in_redis(faults.redis) if faults.bucket else [])
        return replace(verdict, wrong=wrong, solo=solo)


@asynccontextmanager
async def _service(folder: Path, store: Literal["redis", "s3"]) -> AsyncIterator[Faults]:
    models = _two_models(folder)
    redis = AppendOnlyRedis(folder / "redis")
    proxy = Proxy(redis_servers.free_port(), redis.port)
    await proxy.start()
    shared = {"FOURSTEP_REDIS_URL": f"redis://127.0.0.1:{proxy.port}/0", "OMP_NUM_THREADS": "1"}
    bucket = S3Server(redis_servers.free_port()) if store == "s3" else None
    if bucket:
        bucket.start()
        bucket.create_bucket()
        shared |= {"FOURSTEP_IMAGE_STORE": f"s3://{BUCKET}"} | bucket.environment
    workers, apis = [], []
    for name in ("worker-0", "worker-1", "worker-2"):
        port = redis_servers.free_port()
        own = {"MODEL": str(models[0]), "METRICS_PORT": str(port), "LEASE_S": str(LEASE_S), "DEVICE": "cpu"}
        own["CPU_RUNTIME"] = "torch"  # lives of a few seconds are too short to convert the networks
        settings = shared | {f"FOURSTEP_{name}": value for name, value in own.items()}
        workers.append(Lives(name, "worker", settings, port, folder, WRONG_CLOCKS_S.get(name, 0.0)))
    for name in ("api-0", "api-1"):
        port = redis_servers.free_port()
        settings = shared | {"FOURSTEP_PORT": str(port), "FOURSTEP_MAX_QUEUED_IMAGES": "200"}
        apis.append(Lives(name, "api", settings, port, folder, WRONG_CLOCKS_S.get(name, 0.0)))
    try:
        faults = Faults(redis, proxy, workers, apis, models, LEASE_S, bucket)
        faults.done["process whose clock is wrong by ten minutes"] = len(WRONG_CLOCKS_S)
        yield faults
    finally:
        for lives in (*workers, *apis):
            lives.stop()
        await proxy.stop()
        redis.stop()
        if bucket:
            bucket.stop()


def _two_models(folder: Path) -> list[Path]:
    """Two models of one name, whose pictures differ."""
    first = tiny_pipelines.save(folder / "tiny-student")
    second = Path(shutil.copytree(first, folder / "second" / "tiny-student"))
    contract = SamplingContract.load(second)
    contract.model_copy(update={"sigmas": [1.0, 0.9, 0.6, 0.2, 0.0]}).save(second)
    return [first, second]


async def all_ready(urls: list[str]) -> None:
    async with httpx.AsyncClient(trust_env=False) as http:
        for url in urls:
            await wait_until(partial(_answers, http, f"{url}/readyz"))


async def _answers(http: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await http.get(url)).status_code == 200
    except httpx.TransportError:
        return False


async def _with_solo_images(
    http: httpx.AsyncClient, url: str, history: History, ends: dict[str, End | None]
) -> dict[str, End | None]:
    """The ends with some strict images made again, one after the other; only those of the model that is served."""
    calls = {answer.job: answer for answer in history.answers if answer.call.startswith("strict") and answer.images}
    made = 0
    for job, answer in calls.items():
        end = ends.get(job or "")
        if job is None or end is None or made >= SOLO_IMAGES:
            continue
        for index in end.images:
            body = body_of(list(answer.seeds)) | {"seeds": [answer.seeds[index]], "mode": "strict"}
            alone = (await http.post(f"{url}/generate", json=body)).json()
            if alone["determinism"]["model_sha"] == end.models.get(index):
                end.solo[index] = alone["images"][0]["sha256"]
                made += 1
    return ends


async def _idle(redis: AppendOnlyRedis) -> None:
    """Wait until no task is left in any stream: by then every second settlement has been refused."""
    with redis.client as client:
        await wait_until(lambda: not any(client.xlen(key) for key in client.keys("*:tasks")), SETTLE_S)


def _verdict(seconds: float, history: History, ends: dict[str, End | None], faults: Faults) -> Verdict:
    counts = sum((lives.counts for lives in (*faults.workers, *faults.apis)), Counter[str]())
    return Verdict(
        seconds=round(seconds, 1),
        calls=history.calls,
        ends=sum(end is not None for end in ends.values()),
        acknowledged_images=history.images,
        completed=sum(len(end.images) for end in ends.values() if end),
        honest_errors=honest_errors(history, ends),
        wrong=[],
        solo=0,
        stored=_stored(faults.redis),
        counted_ok=counts["fourstep_images_total/ok"],
        counted_duplicates=counts["fourstep_images_total/duplicate"],
        redeliveries=counts["fourstep_redeliveries_total"],
        worker_deaths=sum(lives.deaths for lives in faults.workers),
        answers=dict(Counter(answer.status for answer in history.answers)),
        counted_answers=sum(
            count for name, count in counts.items() if name.startswith("fourstep_requests_total//generate/")
        ),
        api_deaths=sum(lives.deaths for lives in faults.apis),
        injected=dict(faults.done),
    )


def _pictures_in_redis(redis: AppendOnlyRedis) -> list[str]:
    """A fault for each picture that Redis holds."""
    with redis.client as client:
        return [f"Redis holds {key.decode()}" for key in client.scan_iter("*:image:*", count=1000)]


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
