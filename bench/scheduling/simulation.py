"""Discrete-event simulation of workers behind one queue, under the real `schedule` and under the policies it replaces.

Without torch. A job is one call for some images. Its latency runs from its arrival until its last image is
decoded. Time is in any unit: only the curve of the step times, the arrivals and the latencies share it.
"""

import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import islice
from math import inf
from statistics import mean

from bench.quantiles import quantile
from worker.engine.scheduler import Candidate, bucket_for, buckets, every_size, schedule

SIZE = (64, 64)

Curve = Callable[[int], float]
"""Time for a batch of so many rows."""


@dataclass(frozen=True)
class Device:
    """The time of a batch: each of its `steps` takes `step(rows)`, decoding the finished rows `decode(rows)`.

    A device that `pads` runs a step of a bucket, as graphs and compiled code do.
    """

    step: Curve
    decode: Curve = lambda rows: 0.0
    steps: int = 4
    max_batch: int = 8
    pads: bool = True

    @property
    def capacity(self) -> float:
        """Images per unit of time at the most efficient batch size."""
        return max(rows / (self.steps * self.step(rows) + self.decode(rows)) for rows in buckets(self.max_batch))

    def seconds(self, rows: int, steps: int, finished: int) -> float:
        """The time of `steps` steps of a batch, of which then `finished` rows are decoded."""
        decoding = self.decode(finished) if finished else 0.0
        return steps * self.step(bucket_for(rows, False, self.max_batch) if self.pads else rows) + decoding

    @property
    def step_times(self) -> dict[int, float]:
        """The times that `schedule` goes by: for each batch size a step, with its share of the decoding."""
        times = {rows: self.step(rows) + self.decode(rows) / self.steps for rows in buckets(self.max_batch)}
        return times if self.pads else every_size(times)


@dataclass(eq=False)
class Job:
    """A call for `images` images, of which `left` are not done."""

    key: str
    arrival: float
    images: int
    left: int


@dataclass(eq=False)
class Image:
    key: str
    job: Job
    steps_left: int


@dataclass(frozen=True)
class Batch:
    images: list[Image]
    steps: int


Held = dict[str, Image]
"""The unfinished images of one worker, in the order in which it got them."""

Policy = Callable[[Held, float, bool], Batch | float]
"""Choose the batch that an idle worker runs now, or the time until which it waits. The flag says whether the queue
holds more."""


def step_level(device: Device) -> Policy:
    """fourstep: one step of the batch that `schedule` picks."""
    step_times = {SIZE: device.step_times}

    def choose(held: Held, now: float, backlogged: bool) -> Batch:
        candidates = [
            Candidate(image.key, image.job.key, SIZE, image.job.arrival, None, image.steps_left)
            for image in held.values()
        ]
        return Batch([held[key] for key in schedule(candidates, step_times, backlogged)], 1)

    return choose


def image_at_a_time(device: Device) -> Policy:
    """First come, first served, without batching."""
    return lambda held, now, backlogged: Batch([next(iter(held.values()))], device.steps)


def request_at_a_time(device: Device) -> Policy:
    """First come, first served; the images of one call share batches, calls do not."""

    def choose(held: Held, now: float, backlogged: bool) -> Batch:
        first = next(iter(held.values())).job
        return Batch([image for image in islice(held.values(), device.max_batch) if image.job is first], device.steps)

    return choose


def request_batching(device: Device, wait: float = 0.0) -> Policy:
    """Dynamic batching as model servers have it: the oldest images together, from first step to last.

    With `wait`, an idle worker gives a batch that is not full so much time from its oldest arrival on.
    """

    def choose(held: Held, now: float, backlogged: bool) -> Batch | float:
        images = list(islice(held.values(), device.max_batch))
        until = images[0].job.arrival + wait
        return until if len(images) < device.max_batch and now < until else Batch(images, device.steps)

    return choose


@dataclass
class Report:
    """The jobs' `latencies`, in the order of their ends, and the batches that ran."""

    latencies: list[float] = field(default_factory=list)
    batches: int = 0
    rows: int = 0
    images: int = 0
    duration: float = 0.0

    def quantile(self, share: float) -> float:
        return quantile(self.latencies, share)

    @property
    def mean_latency(self) -> float:
        return mean(self.latencies)

    @property
    def throughput(self) -> float:
        return self.images / self.duration

    @property
    def mean_batch(self) -> float:
        return self.rows / self.batches


class _Worker:
    def __init__(self) -> None:
        self.held: Held = {}
        self.running = False


class Simulation:
    """`workers` behind one first-come-first-served queue, from which each holds at most `window` images.

    As with Redis' blocking reads, what arrives goes to the worker whose read has been waiting for the longest.
    """

    def __init__(self, device: Device, policy: Policy, workers: int = 1, window: float = inf) -> None:
        self._device = device
        self._policy = policy
        self._window = window
        self._workers = [_Worker() for _ in range(workers)]
        self._readers = deque(self._workers)
        self._queue: deque[Image] = deque()
        self._events: list[tuple[float, int, _Worker, Batch | None]] = []
        self._sequence = 0
        self._report = Report()

    def run(self, arrivals: Sequence[tuple[float, int]]) -> Report:
        """Serve jobs given as (time, images), in order of time, to the last one's end."""
        for number, (now, images) in enumerate(arrivals):
            while self._events and self._events[0][0] < now:
                self._next_event()
            job = Job(str(number), now, images, images)
            self._queue.extend(Image(f"{number} {index:03}", job, self._device.steps) for index in range(images))
            together = number + 1 < len(arrivals) and arrivals[number + 1][0] == now
            if not together:
                self._deal(now)
        while self._events:
            self._next_event()
        return self._report

    def _next_event(self) -> None:
        now, _, worker, ended = heappop(self._events)
        if ended:
            self._finish(worker, ended, now)
        self._start(worker, now)

    def _deal(self, now: float) -> None:
        while self._queue and self._readers:
            worker = self._readers.popleft()
            while self._queue and len(worker.held) < self._window:
                image = self._queue.popleft()
                worker.held[image.key] = image
            if len(worker.held) < self._window:
                self._readers.append(worker)
            self._start(worker, now)

    def _start(self, worker: _Worker, now: float) -> None:
        if worker.running or not worker.held:
            return
        batch = self._policy(worker.held, now, bool(self._queue))
        if isinstance(batch, float):
            self._at(batch, worker, None)
            return
        finished = sum(image.steps_left == batch.steps for image in batch.images)
        worker.running = True
        self._report.batches += 1
        self._report.rows += len(batch.images)
        self._at(now + self._device.seconds(len(batch.images), batch.steps, finished), worker, batch)

    def _at(self, time: float, worker: _Worker, ended: Batch | None) -> None:
        self._sequence += 1
        heappush(self._events, (time, self._sequence, worker, ended))

    def _finish(self, worker: _Worker, batch: Batch, now: float) -> None:
        worker.running = False
        was_full = len(worker.held) >= self._window
        for image in batch.images:
            image.steps_left -= batch.steps
            if image.steps_left:
                continue
            del worker.held[image.key]
            self._report.images += 1
            image.job.left -= 1
            if not image.job.left:
                self._report.latencies.append(now - image.job.arrival)
        self._report.duration = now
        if was_full and len(worker.held) < self._window:
            self._readers.append(worker)
            self._deal(now)


def poisson(rate: float, dice: random.Random) -> Iterator[float]:
    """Times of a Poisson process, `rate` per unit of time."""
    now = 0.0
    while True:
        now += dice.expovariate(rate)
        yield now


def bursty(rate: float, dice: random.Random, burst: int = 8) -> Iterator[float]:
    """The same mean rate, arriving `burst` at once."""
    for now in poisson(rate / burst, dice):
        yield from [now] * burst


def jobs(times: Iterator[float], sizes: Sequence[int], count: int, dice: random.Random) -> list[tuple[float, int]]:
    """`count` jobs at `times`, each of as many images as one drawn from `sizes`."""
    return [(now, dice.choice(sizes)) for now in islice(times, count)]
