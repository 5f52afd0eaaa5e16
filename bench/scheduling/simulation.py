"""Discrete-event simulation of workers behind one queue. The policies are in step_rules.py and peers.py.

Without torch. A call asks for some images. Its latency runs from its arrival until its last image is decoded. Time is
in any unit: only the curve of the step times, the arrivals, the deadlines and the latencies share it. The same calls
give the same report.
"""

import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from heapq import heappop, heappush
from itertools import islice
from math import inf
from statistics import mean

from bench.quantiles import quantile
from worker.engine.scheduler import Candidate, Size, buckets, every_size

SIZE = (64, 64)

Curve = Callable[[int], float]
"""Time for a batch of so many rows."""


@dataclass(frozen=True)
class Device:
    """The time of a batch: each of its `steps` takes `step(rows)`, decoding the finished rows `decode(rows)`.

    A device that `pads` runs a step of one of its `batch_sizes`, as graphs and compiled code do. A step of an image
    size takes `slower[size]` times as long.
    """

    step: Curve
    decode: Curve = lambda rows: 0.0
    steps: int = 4
    max_batch: int = 8
    pads: bool = True
    batch_sizes: tuple[int, ...] = ()
    slower: Mapping[Size, float] = field(default_factory=lambda: {SIZE: 1.0})

    @cached_property
    def measured(self) -> tuple[int, ...]:
        """The batch sizes that warm-up measures: `batch_sizes`, by default those of the worker."""
        return self.batch_sizes or buckets(self.max_batch)

    @cached_property
    def step_times(self) -> dict[Size, dict[int, float]]:
        """The times that `schedule` goes by: for each batch size a step, with its share of the decoding."""
        times = {rows: self.step(rows) + self.decode(rows) / self.steps for rows in self.measured}
        times = times if self.pads else every_size(times)
        return {size: {rows: slower * time for rows, time in times.items()} for size, slower in self.slower.items()}

    @cached_property
    def capacity(self) -> float:
        """Images of `SIZE` per unit of time at the most efficient batch size."""
        return max(rows / time for rows, time in self.step_times[SIZE].items()) / self.steps

    def seconds(self, rows: int, steps: int, finished: int, size: Size = SIZE, strict: bool = False) -> float:
        """The time of `steps` steps of a batch, of which then `finished` rows are decoded."""
        decoding = self.decode(finished) if finished else 0.0
        return self.slower[size] * (steps * self._step_of[self.max_batch if strict else rows] + decoding)

    @cached_property
    def _step_of(self) -> list[float]:
        """The time of a step by the number of rows."""
        sizes = self.measured if self.pads else range(1, self.max_batch + 1)
        return [0.0, *(self.step(next(n for n in sizes if n >= rows)) for rows in range(1, self.max_batch + 1))]


@dataclass(frozen=True)
class Call:
    """`images` images of one `size`, asked for at `time`; `strict` ones run in the largest batch only."""

    time: float
    images: int = 1
    size: Size = SIZE
    deadline: float | None = None
    strict: bool = False


@dataclass(eq=False)
class Job:
    """A call of which `left` images are not done."""

    key: str
    call: Call
    left: int


@dataclass(eq=False)
class Image:
    row: Candidate
    job: Job


@dataclass(frozen=True)
class Batch:
    images: list[Image]
    steps: int


Held = dict[str, Image]
"""The unfinished images of one worker, in the order in which it got them."""

Policy = Callable[[Held, float, bool], Batch | float]
"""Choose the batch that an idle worker runs now, or the time until which it waits. The flag says whether the queue
holds more."""


@dataclass
class Report:
    """The calls' `latencies`, in the order of their ends, how many ended after their deadline, and the batches."""

    latencies: list[float] = field(default_factory=list)
    late: int = 0
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

    def run(self, calls: Sequence[Call]) -> Report:
        """Serve `calls`, given in order of time, to the last one's end."""
        for number, call in enumerate(calls):
            while self._events and self._events[0][0] < call.time:
                self._next_event()
            job = Job(str(number), call, call.images)
            self._queue.extend(self._image(job, index) for index in range(call.images))
            together = number + 1 < len(calls) and calls[number + 1].time == call.time
            if not together:
                self._deal(call.time)
        while self._events:
            self._next_event()
        return self._report

    def _image(self, job: Job, index: int) -> Image:
        call, key = job.call, f"{job.key} {index:03}"
        return Image(Candidate(key, job.key, call.size, call.time, call.deadline, self._device.steps, call.strict), job)

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
                worker.held[image.row.key] = image
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
        rows = [image.row for image in batch.images]
        finished = sum(row.steps_left == batch.steps for row in rows)
        worker.running = True
        self._report.batches += 1
        self._report.rows += len(rows)
        strict = any(row.strict for row in rows)
        self._at(now + self._device.seconds(len(rows), batch.steps, finished, rows[0].size, strict), worker, batch)

    def _at(self, time: float, worker: _Worker, ended: Batch | None) -> None:
        self._sequence += 1
        heappush(self._events, (time, self._sequence, worker, ended))

    def _finish(self, worker: _Worker, batch: Batch, now: float) -> None:
        worker.running = False
        was_full = len(worker.held) >= self._window
        for image in batch.images:
            image.row = replace(image.row, steps_left=image.row.steps_left - batch.steps)
            if image.row.steps_left:
                continue
            del worker.held[image.row.key]
            self._report.images += 1
            image.job.left -= 1
            if not image.job.left:
                self._end(image.job.call, now)
        self._report.duration = now
        if was_full and len(worker.held) < self._window:
            self._readers.append(worker)
            self._deal(now)

    def _end(self, call: Call, now: float) -> None:
        self._report.latencies.append(now - call.time)
        self._report.late += call.deadline is not None and call.deadline < now


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


def calls(times: Iterator[float], images: Sequence[int], count: int, dice: random.Random) -> list[Call]:
    """`count` calls at `times`, each for as many images as one drawn from `images`."""
    return [Call(now, dice.choice(images)) for now in islice(times, count)]
