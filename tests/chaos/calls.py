"""The clients under trial: they keep their promises exactly as a careful client would, and write down every answer."""

import asyncio
import base64
import hashlib
import random
from collections import Counter
from dataclasses import dataclass, field

import httpx

RETRY_S = 0.3
TIMEOUT_S = 240


@dataclass
class Job:
    """A job as its acknowledgement promised it."""

    id: str
    seeds: list[int]


@dataclass
class Ledger:
    """All acknowledged jobs, and the hash of every image that any answer has shown."""

    jobs: dict[str, Job] = field(default_factory=dict)
    shown: dict[tuple[str, int], str] = field(default_factory=dict)
    statuses: Counter[str] = field(default_factory=Counter)
    contradictions: list[str] = field(default_factory=list)

    @property
    def images(self) -> int:
        return sum(len(job.seeds) for job in self.jobs.values())

    def acknowledge(self, job_id: str, seeds: list[int]) -> None:
        earlier = self.jobs.setdefault(job_id, Job(job_id, seeds))
        if earlier.seeds != seeds:
            self.contradictions.append(f"job {job_id} was promised to two calls")

    def show(self, job_id: str, index: int, sha256: str) -> None:
        if self.shown.setdefault((job_id, index), sha256) != sha256:
            self.contradictions.append(f"image {index} of {job_id} has been two images")


class Client:
    """One user of all API copies, who repeats a call until it has an answer that is final."""

    def __init__(self, number: int, urls: list[str], ledger: Ledger, enough: int) -> None:
        self._random = random.Random(number)
        self._number = number
        self._urls = urls
        self._ledger = ledger
        self._enough = enough
        self._calls = 0

    async def run(self) -> None:
        """Call until enough images are acknowledged over all clients."""
        limits = httpx.Limits(max_keepalive_connections=4)
        async with httpx.AsyncClient(timeout=TIMEOUT_S + 20, trust_env=False, limits=limits) as http:
            while self._ledger.images < self._enough:
                kind = self._random.choice([self._later, self._waiting, self._waiting, self._twins, self._impatient])
                count = self._random.choice([1, 1, 1, 2, 3, 8])
                self._calls += 1
                first = (self._number * 10_000 + self._calls) * 100
                seeds = list(range(first, first + count))
                await kind(http, seeds)

    async def _later(self, http: httpx.AsyncClient, seeds: list[int]) -> None:
        """An async call, known by its 202."""
        answer = await self._answered(http, seeds, {"Prefer": "respond-async", "Idempotency-Key": f"later {seeds[0]}"})
        if answer.status_code in (200, 202):
            self._ledger.acknowledge(answer.json()["id"], seeds)

    async def _waiting(self, http: httpx.AsyncClient, seeds: list[int]) -> None:
        """A call that waits; its key finds its images again when the connection breaks."""
        self._note(seeds, await self._answered(http, seeds, {"Idempotency-Key": f"waiting {seeds[0]}"}))

    async def _twins(self, http: httpx.AsyncClient, seeds: list[int]) -> None:
        """One call three times at once: all its answers must be one job's."""
        headers = {"Idempotency-Key": f"twins {seeds[0]}"}
        answers = await asyncio.gather(*(self._answered(http, seeds, headers) for _ in range(3)))
        jobs = {answer.json()["id"] for answer in answers if answer.status_code == 200}
        if len(jobs) > 1:
            self._ledger.contradictions.append(f"twins {seeds[0]} became {len(jobs)} jobs")
        for answer in answers:
            self._note(seeds, answer)

    async def _impatient(self, http: httpx.AsyncClient, seeds: list[int]) -> None:
        """A call without a key that gives up soon: its images are answered, or end with it."""
        try:
            answer = await http.post(
                f"{self._url()}/generate", json=self._body(seeds) | {"timeout": 2}, timeout=self._random.uniform(0.2, 4)
            )
        except httpx.TransportError:
            self._ledger.statuses["gone"] += 1
            return
        self._count(answer)
        self._note(seeds, answer)

    async def _answered(self, http: httpx.AsyncClient, seeds: list[int], headers: dict[str, str]) -> httpx.Response:
        """The final answer: broken connections, 429, 503 and "still running" are tried again, as their texts advise."""
        while True:
            try:
                answer = await http.post(f"{self._url()}/generate", json=self._body(seeds), headers=headers)
            except httpx.TransportError:
                self._ledger.statuses["broken"] += 1
            else:
                self._count(answer)
                running = answer.status_code == 409 and answer.json()["type"].endswith("idempotency-key-in-use")
                if running:
                    self._ledger.acknowledge(answer.headers["location"].rpartition("/")[2], seeds)
                if answer.status_code not in (429, 503) and not running:
                    return answer
            await asyncio.sleep(RETRY_S * self._random.uniform(0.5, 1.5))

    def _note(self, seeds: list[int], answer: httpx.Response) -> None:
        if answer.status_code != 200:
            return
        body = answer.json()
        self._ledger.acknowledge(body["id"], seeds)
        if [image["seed"] for image in body["images"]] != seeds:
            self._ledger.contradictions.append(f"job {body['id']} has other seeds")
        for image in body["images"]:
            if hashlib.sha256(base64.b64decode(image["b64"])).hexdigest() != image["sha256"]:
                self._ledger.contradictions.append(f"image {image['index']} of {body['id']} is not its hash")
            self._ledger.show(body["id"], image["index"], image["sha256"])

    def _count(self, answer: httpx.Response) -> None:
        reason = f" {answer.json()['type'].rpartition(':')[2]}" if answer.status_code == 500 else ""
        self._ledger.statuses[f"{answer.status_code}{reason}"] += 1

    def _url(self) -> str:
        return self._random.choice(self._urls)

    def _body(self, seeds: list[int]) -> dict:
        return {"prompt": f"chaos {seeds[0]}", "seeds": seeds, "timeout": TIMEOUT_S}
