"""Consume image tasks from the queue: claim them, keep their leases, pass them to the engine, hand results on."""

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from redis.exceptions import RedisError

from jobs.metrics import WorkerMetrics
from jobs.queue.claims import Claim
from jobs.queue.worker_queue import WorkerQueue
from worker.engine.outcomes import Outcome, PreviewImage
from worker.engine_process.client import EngineClient
from worker.previews import Previews
from worker.redis_retry import until_redis_answers
from worker.results import ResultWriter
from worker.rollout import Rollout

log = logging.getLogger(__name__)

BLOCK_S = 1.0
"""Longest wait for a task in one read, and so the longest time that a shutdown waits for the reader."""

RESUBSCRIBE_PAUSE_S = 0.5

MOST_HELD = 6
"""Claimed images, as a multiple of the engine's capacity, at which claiming stops: results then wait for a Redis that
has no memory left.

The only worker of a model claims so many at once, so that the scheduler sees the small call behind a call of 64. Among
several workers, images that one holds are images that another cannot take.
"""

MAX_ATTEMPTS = 3
"""Attempts after which a suspect task is given up: it ran alone, and took this many workers down with it."""


@dataclass(eq=False)
class Consumer:
    """Moves tasks between the queue and the engine. It runs in the event loop."""

    queue: WorkerQueue
    worker_id: str
    engine: EngineClient
    result_writer: ResultWriter
    metrics: WorkerMetrics
    lease_s: float

    def __post_init__(self) -> None:
        self.queue.buried = self._count_unreadable
        self._previews = Previews(self.queue, self.engine.watch)
        self._rollout = Rollout(self.result_writer, self.engine.card.sha256)
        self._held: dict[str, Claim] = {}
        # Held, but not in the engine: suspects run alone, one after the other; others are put aside meanwhile.
        self._suspects: dict[str, Claim] = {}
        self._aside: dict[str, Claim] = {}
        self._trying = False
        self._in_engine = 0
        self._alone = False
        self._changed = asyncio.Event()
        self._stopping = False

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then finish the images that have begun and requeue the others.

        Raises an ExceptionGroup when the engine or one of the loops fails.
        """
        async with asyncio.TaskGroup() as group:
            self._serve_engine(group)
            lasting = [
                group.create_task(self._keep_leases()),
                group.create_task(self._reclaim_forever(group)),
                group.create_task(self._try_suspects_forever()),
                group.create_task(self._watch_engine()),
                group.create_task(self._listen_for_cancellations()),
                group.create_task(self._previews.listen_for_subscriptions()),
                group.create_task(self._previews.publish_forever()),
            ]
            claiming = group.create_task(self._claim_forever(group))
            await stop.wait()
            self._stopping = True
            self._changed.set()
            await claiming
            await self._requeue_unstarted()
            while self._held:
                await self._change()
            for task in lasting:
                task.cancel()
            await until_redis_answers(partial(self.queue.registry.deregister, self.worker_id))

    def _serve_engine(self, group: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()

        def deliver(outcomes: list[Outcome]) -> None:
            loop.call_soon_threadsafe(self._receive, group, outcomes)

        def show(previews: list[PreviewImage]) -> None:
            loop.call_soon_threadsafe(self._previews.show, previews)

        self.engine.deliver, self.engine.show = deliver, show

    async def _keep_leases(self) -> None:
        registry = self.queue.registry
        while True:
            await until_redis_answers(partial(registry.announce, self.worker_id, self.engine.card, self.lease_s))
            settled = await until_redis_answers(lambda: self.queue.renew(self.worker_id, list(self._held.values())))
            await self._withdraw([claim.entry_id for claim in settled])
            self._alone = await until_redis_answers(registry.known_workers) == 1
            await asyncio.sleep(self.lease_s / 3)

    async def _listen_for_cancellations(self) -> None:
        while True:
            with suppress(RedisError, OSError):
                async for job_id in self.queue.cancelled_jobs():
                    await self._withdraw([key for key, held in self._held.items() if held.task.job_id == job_id])
            await asyncio.sleep(RESUBSCRIBE_PAUSE_S)

    async def _withdraw(self, keys: Sequence[str]) -> None:
        """Take cancelled tasks out of the engine at the next step boundary."""
        if not keys:
            return
        withdrawn = await asyncio.wrap_future(self.engine.withdraw(keys))
        claims = [self._held.pop(key) for key in withdrawn]
        self._in_engine -= _rows(claims)
        claims += self._take_waiting(keys)
        self._changed.set()
        for outcome in await until_redis_answers(partial(self.queue.outcomes, claims)):
            self.metrics.images.labels(outcome).inc()

    async def _claim_forever(self, group: asyncio.TaskGroup) -> None:
        while not self._stopping:
            room = self._room if self._alone else self._free
            if room <= 0 or self._suspects or self._trying:
                await self._change()
                continue
            claims = await until_redis_answers(partial(self.queue.claim, self.worker_id, room, BLOCK_S))
            self.engine.tell_backlog(len(claims) == room)
            self._admit(group, await self._rollout.own(claims))

    async def _reclaim_forever(self, group: asyncio.TaskGroup) -> None:
        while not self._stopping:
            await asyncio.sleep(self.lease_s / 2)
            if self._free <= 0:
                continue
            reclaim = partial(self.queue.reclaim, self.worker_id, self.lease_s, self._free)
            claims = await until_redis_answers(reclaim)
            self.metrics.redeliveries.inc(sum(claim.taken_from != self.worker_id for claim in claims))
            self._admit(group, await self._rollout.own(claims))

    async def _try_suspects_forever(self) -> None:
        """Run each suspect alone, so that a task that takes a worker down is told from those beside it."""
        while not self._stopping:
            if not self._suspects or self._in_engine:
                await self._change()
                continue
            self._trying = True
            claim = min(self._suspects.values(), key=lambda suspect: suspect.attempts)
            del self._suspects[claim.entry_id]
            await self._try(claim)
            self._trying = False
            self._feed()

    async def _try(self, claim: Claim) -> None:
        attempts = await until_redis_answers(partial(self.queue.begin, claim))
        if attempts > MAX_ATTEMPTS:
            await self._bury(claim, attempts - 1)
            return
        self._add({claim.entry_id: claim})
        while claim.entry_id in self._held:
            await self._change()

    async def _watch_engine(self) -> None:
        await asyncio.wrap_future(self.engine.stopped)

    async def _requeue_unstarted(self) -> None:
        keys = await asyncio.wrap_future(self.engine.withdraw_unstarted())
        claims = [self._held.pop(key) for key in keys]
        self._in_engine -= _rows(claims)
        claims += self._take_waiting([*self._suspects, *self._aside])
        self._changed.set()
        await until_redis_answers(partial(self.queue.requeue, claims))
        log.info("stopping: %d images requeued, %d to finish", len(claims), len(self._held))

    @property
    def _capacity(self) -> int:
        """A few more than a step holds, so that the next batch is there when one ends."""
        max_batch = self.engine.card.settings.max_batch or 1
        return max_batch + max(1, max_batch // 2)

    @property
    def _free(self) -> int:
        return min(self._capacity - self._in_engine - len(self._suspects), self._room)

    @property
    def _room(self) -> int:
        return MOST_HELD * self._capacity - len(self._held)

    async def _change(self) -> None:
        """Wait until an image leaves the engine or is settled, or the shutdown begins."""
        self._changed.clear()
        await self._changed.wait()

    def _admit(self, group: asyncio.TaskGroup, claims: Sequence[Claim]) -> None:
        # After an absence of Redis a worker may be given what it still holds.
        fresh = {claim.entry_id: claim for claim in claims if claim.entry_id not in self._held}
        self._held.update(fresh)
        for claim in fresh.values():
            if fault := self._fault(claim):
                group.create_task(self._refuse(claim, fault))
            else:
                waiting = self._suspects if claim.suspect else self._aside
                waiting[claim.entry_id] = claim
        self._feed()
        self._changed.set()

    def _feed(self) -> None:
        """Give the engine what was put aside, unless a suspect is running."""
        if self._aside and not self._trying:
            aside, self._aside = self._aside, {}
            self._add(aside)

    def _add(self, claims: Mapping[str, Claim]) -> None:
        self._in_engine += _rows(claims.values())
        sources = {key: claim.source for key, claim in claims.items() if claim.source}
        self.engine.add({key: claim.task for key, claim in claims.items()}, sources)

    def _take_waiting(self, keys: Iterable[str]) -> list[Claim]:
        """Release those tasks of `keys` that are held but not in the engine, and return them."""
        taken = []
        for key in keys:
            if self._suspects.pop(key, None) or self._aside.pop(key, None):
                taken.append(self._held.pop(key))
        return taken

    def _count_unreadable(self, images: int) -> None:
        self.metrics.images.labels("error").inc(images)
        self.metrics.dead_letters.inc(images > 0)

    def _fault(self, claim: Claim) -> str | None:
        size, card = (claim.task.height, claim.task.width), self.engine.card
        if size not in card.sizes:
            return f"size: {size} is not one of {card.sizes}"
        return f"image: {card.name} takes none" if claim.task.source and not card.noise_levels else None

    def _receive(self, group: asyncio.TaskGroup, outcomes: list[Outcome]) -> None:
        # A set can fail twice, by one picture and by another row, before the engine hears of the first.
        outcomes = [outcome for outcome in outcomes if outcome.key in self._held]
        self._in_engine -= _rows(self._held[outcome.key] for outcome in outcomes)
        self._changed.set()
        for outcome in outcomes:
            group.create_task(self._settle(outcome))

    async def _settle(self, outcome: Outcome) -> None:
        await self.result_writer.settle(self._held[outcome.key], outcome)
        self._release(outcome.key)

    async def _refuse(self, claim: Claim, fault: str) -> None:
        await self.result_writer.refuse(claim, fault)
        self._release(claim.entry_id)

    async def _bury(self, claim: Claim, attempts: int) -> None:
        await self.result_writer.bury(claim, f"given up after {attempts} attempts, each of which ended its worker")
        self._release(claim.entry_id)

    def _release(self, key: str) -> None:
        del self._held[key]
        self._changed.set()


def _rows(claims: Iterable[Claim]) -> int:
    """Return the number of rows that the tasks begin with: a diverse set has one for each candidate."""
    return sum(claim.task.select.candidates if claim.task.select else 1 for claim in claims)
