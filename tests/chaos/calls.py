"""The clients under trial: they keep their promises exactly as a careful client would, and write down every answer."""

import asyncio
import base64
import hashlib
import random
from collections.abc import Mapping
from typing import Any

import httpx

from tests.chaos.history import Answer, History
from tests.chaos.parts.processes import POISON

RETRY_S = 0.3
TIMEOUT_S = 240


class Client:
    """One user of all API copies, who repeats a call until it has an answer that is final."""

    def __init__(self, number: int, urls: list[str], history: History, enough: int) -> None:
        self._random = random.Random(number)
        self._number = number
        self._urls = urls
        self._history = history
        self._enough = enough
        self._calls = 0

    async def run(self) -> None:
        """Call until enough images are acknowledged over all clients. The first begins with a poisonous prompt."""
        limits = httpx.Limits(max_keepalive_connections=4)
        kinds = [self._later, self._waiting, self._waiting, self._strict, self._twins, self._impatient]
        async with httpx.AsyncClient(timeout=TIMEOUT_S + 20, trust_env=False, limits=limits) as http:
            while self._history.images < self._enough:
                kind = self._random.choice(kinds)
                count = self._random.choice([1, 1, 1, 2, 3, 8])
                self._calls += 1
                first = (self._number * 10_000 + self._calls) * 100
                if self._number == 1 and self._calls == 1:
                    await self._poison(http, first)
                else:
                    await kind(http, list(range(first, first + count)))

    async def _later(self, http: httpx.AsyncClient, seeds: list[int]) -> None:
        """An async call, known by its 202."""
        await self._answered(http, f"later {seeds[0]}", body_of(seeds), {"Prefer": "respond-async"})

    async def _waiting(self, http: httpx.AsyncClient, seeds: list[int]) -> None:
        """A call that waits; its key finds its images again when the connection breaks."""
        await self._answered(http, f"waiting {seeds[0]}", body_of(seeds))

    async def _strict(self, http: httpx.AsyncClient, seeds: list[int]) -> None:
        """The same in strict mode: its images can be made again, to compare the bits."""
        await self._answered(http, f"strict {seeds[0]}", body_of(seeds) | {"mode": "strict"})

    async def _twins(self, http: httpx.AsyncClient, seeds: list[int]) -> None:
        """One call three times at once: all its answers must be one job's."""
        await asyncio.gather(*(self._answered(http, f"twins {seeds[0]}", body_of(seeds)) for _ in range(3)))

    async def _poison(self, http: httpx.AsyncClient, first: int) -> None:
        """A call that takes down each worker which begins it, and is given up."""
        call = f"poison {first}"
        body = body_of([first]) | {"prompt": POISON}
        await self._answered(http, call, body, {"Prefer": "respond-async"})

    async def _impatient(self, http: httpx.AsyncClient, seeds: list[int]) -> None:
        """A call without a key that gives up soon: its images are answered, or end with it."""
        call = f"impatient {seeds[0]}"
        try:
            answer = await http.post(
                f"{self._url()}/generate",
                json=body_of(seeds) | {"timeout": 2},
                timeout=self._random.uniform(0.2, 4),
            )
        except httpx.TransportError:
            self._history.add(Answer(call, tuple(seeds), "gone"))
            return
        self._history.add(read_answer(call, seeds, answer))

    async def _answered(
        self, http: httpx.AsyncClient, call: str, body: dict[str, Any], headers: Mapping[str, str] = {}
    ) -> Answer:
        """The final answer: broken connections, 429, 503 and "still running" are tried again, as their texts advise."""
        seeds = body["seeds"]
        while True:
            try:
                sent = await http.post(
                    f"{self._url()}/generate", json=body, headers={"Idempotency-Key": call, **headers}
                )
            except httpx.TransportError:
                self._history.add(Answer(call, tuple(seeds), "broken"))
            else:
                answer = read_answer(call, seeds, sent)
                self._history.add(answer)
                running = answer.status == "409" and answer.reason == "idempotency-key-in-use"
                if answer.status not in ("429", "503") and not running:
                    return answer
            await asyncio.sleep(RETRY_S * self._random.uniform(0.5, 1.5))

    def _url(self) -> str:
        return self._random.choice(self._urls)


def body_of(seeds: list[int]) -> dict[str, Any]:
    return {"prompt": f"chaos {seeds[0]}", "seeds": seeds, "timeout": TIMEOUT_S}


def read_answer(call: str, seeds: list[int], answer: httpx.Response) -> Answer:
    body = answer.json()
    status, named = str(answer.status_code), tuple(seeds)
    if status == "202":
        return Answer(call, named, status, body["id"])
    if status != "200":
        job = answer.headers["location"].rpartition("/")[2] if "location" in answer.headers else None
        reason = body["type"].rpartition(":")[2]
        return Answer(call, named, status, job, reason, retry_after="retry-after" in answer.headers)
    images = body["images"]
    inline = [image for image in images if "b64" in image]
    return Answer(
        call,
        named,
        status,
        body["id"],
        image_seeds=tuple(image["seed"] for image in images),
        images={image["index"]: image["sha256"] for image in images},
        intact=all(hashlib.sha256(base64.b64decode(image["b64"])).hexdigest() == image["sha256"] for image in inline),
    )
