"""Step-level continuous batching: rows join and leave a batch at every denoising step."""

import logging
from collections.abc import Callable, Collection, Container, Mapping, Sequence
from types import MappingProxyType

import torch

from jobs.clock import steady_time
from jobs.models import FailureReason, ImageTask
from jobs.queue.claims import SourceFiles
from worker.engine.decoded import Advance, Decoded, Judge, decode_previews
from worker.engine.diverse_set import CandidateSet
from worker.engine.executor import Executor
from worker.engine.failure_isolation import FailureIsolation, Work
from worker.engine.model_runner import ModelRunner
from worker.engine.outcomes import Failure, Outcome, PreviewImage
from worker.engine.row import Row
from worker.engine.scheduler import Candidate, Size, StepTimes, schedule
from worker.engine.step_graphs import Graph
from worker.engine.step_times.rehearsal import Rehearsal
from worker.engine.step_times.timetable import Timetable
from worker.model_folder.loading import LoadedModel

log = logging.getLogger(__name__)

Policy = Callable[[Sequence[Candidate], StepTimes, bool], list[str]]


class Engine:
    """Schedules and runs all rows of one device. Not thread-safe: one thread adds, steps and withdraws.

    `new_graph` makes the graphs that warm-up captures; without it every step is launched kernel by kernel. `policy`
    chooses the rows of each step; benchmarks compare others. The runner calls its `measure` with the cost of every
    batch, the engine calls `show` with previews of the jobs in `watched`. Its owner keeps `backlogged` true while more
    images wait in the queue than the engine has. With `strict_waits` strict rows wait for a switch to the executor that
    is to run all of them. `compiling_failed` says that nothing was made to switch to.

    While a step runs on an asynchronous device, the next one is planned and its inputs are made. `await_task` is called
    then: its owner adds or withdraws tasks until a time of `time.perf_counter`, and returns at the first, with True.
    """

    def __init__(
        self,
        model: LoadedModel,
        max_batch: int,
        new_graph: Callable[[], Graph] | None = None,
        policy: Policy = schedule,
    ) -> None:
        self.model = model
        self.max_batch = max_batch
        self.watched: Container[str] = ()
        self.show: Callable[[list[PreviewImage]], None] = lambda previews: None
        self.timetable = Timetable(model.contract.sizes, max_batch)
        self.judge: Judge | None = None
        self.backlogged = False
        self.strict_waits = False
        self.compiling_failed = False
        self.await_task: Callable[[float], bool] = lambda until: False
        self._planned: list[Row] | None = None
        self._policy = policy
        self._rows: dict[str, Row] = {}
        self._sets: dict[str, CandidateSet] = {}
        self._failures: dict[str, Failure] = {}
        self._steps = model.table.steps
        self.runner = ModelRunner(model, max_batch, new_graph)
        self.isolation = FailureIsolation(model.network.device, lambda row, detail: self._fail(row, "error", detail))
        self.rehearsal = Rehearsal(self.runner, self.timetable, self._steps)

    @property
    def step_times(self) -> dict[Size, dict[int, float]]:
        return self.timetable.step_times

    @property
    def busy(self) -> bool:
        """Return whether there is a row that does not wait for a switch."""
        return any(not self._waits(row) for row in self._rows.values())

    def add(self, tasks: Mapping[str, ImageTask], sources: Mapping[str, SourceFiles] = MappingProxyType({})) -> None:
        """Add `tasks`, which join at the next step together; outcomes carry their keys, which must be new.

        `sources` holds the files of those that begin from a picture.
        """
        self._planned = None
        for key, task in tasks.items():
            rows = [Row(key, task, source=sources.get(key))]
            if task.select:
                self._sets[key] = CandidateSet(key, task, sources.get(key))
                rows = self._sets[key].rows
            self._rows.update({row.key: row for row in rows})

    def withdraw(self, keys: Collection[str]) -> list[str]:
        """Remove the tasks of `keys` that are not finished, and return their keys."""
        self._planned = None
        gone = [row for row in self._rows.values() if row.task_key in keys]
        for row in gone:
            del self._rows[row.key]
            self._sets.pop(row.task_key, None)
        if not self._rows:
            self.runner.idle()
        return list(dict.fromkeys(row.task_key for row in gone))

    def withdraw_unstarted(self) -> list[str]:
        """Remove every task that has not begun, and return their keys."""
        return self.withdraw({row.task_key for row in self._rows.values()} - self._begun())

    def step(self) -> list[Outcome]:
        """Run one step of one batch; returns the tasks that it finished and those that failed."""
        return self.advance().outcomes()

    @torch.inference_mode()
    def advance(self) -> Advance:
        """Run one step of one batch, and leave the outcomes to be made from what it returns.

        Raises DeviceLostError when the device has failed: then no image is failed, and another worker makes them.
        """
        self._survivors(self._next_rows(), self._denoise, self._step_fewer)
        self._choose()
        self._show_unfinished()
        decoded = self._decode_finished()
        failures, self._failures = self._failures, {}
        if not self._rows:
            self.runner.idle()
        return Advance(decoded, list(failures.values()), self.judge)

    def warm_up(self) -> None:
        """Make ready for serving; see Rehearsal.warm_up."""
        self.rehearsal.warm_up()

    def switch(self, executor: Executor) -> None:
        """Run rows on `executor` from the next step on: all but strict ones, or all where it is batch-invariant."""
        self._planned = None
        self.runner.switch(executor)
        for size in self.step_times:
            self.rehearsal.set_times(size, self.timetable.measured(size))

    def end_compiling(self) -> None:
        """Let strict rows wait for no switch, and take all memory for those here."""
        self.strict_waits = self.isolation.shares_memory = False
        self._planned = None

    def _next_rows(self) -> list[Row]:
        """Let the rows of the next step begin and return them: those that were planned, where nothing came between."""
        planned, self._planned = self._planned, None
        if planned is None or any(self._waits(row) or _missed(row, steady_time()) for row in planned):
            planned = self._plan()
        begun = self._survivors(planned, self._begin, lambda rows: self.runner.free_memory())
        return [row for row in begun if row.step < self._steps]

    def _plan(self) -> list[Row]:
        self._expire(steady_time())
        able = [row for row in self._rows.values() if self._can_step(row)]
        candidates = [row.candidate(self._steps, self.runner.needs_strict_batch([row])) for row in able]
        chosen = self._policy(candidates, self.step_times, self.backlogged)
        return self._within_strict_batch([self._rows[key] for key in chosen])

    def _look_ahead(self, until: float) -> None:
        """Plan the next step, and plan it anew whenever a task comes or goes before `until`.

        Not while there are sets: which of their rows go on depends on what the step that runs makes of them. Rows that
        are new begin after the step, since encoding their prompts would be counted as part of it.
        """
        while True:
            if not self._sets:
                self._planned = self._plan()
                self._prepare(self._planned)
            if not self.await_task(until):
                return

    def _prepare(self, rows: list[Row]) -> None:
        try:
            self.runner.prepare(rows)
        except torch.AcceleratorError:
            raise  # the device reports by any call what became of the step that runs
        except Exception as error:  # the step itself will fail by it, and only those rows that fail alone
            self.isolation.raise_if_lost(error)

    def _begin(self, rows: list[Row]) -> None:
        waiting = (row.task.prompt for row in self._rows.values() if row.start is None)
        self.runner.begin(rows, waiting)

    def _denoise(self, rows: list[Row]) -> None:
        try:
            seconds = self.runner.denoise(rows, self._look_ahead)
        except BaseException:
            self._planned = None  # with rows as the step would have left them
            raise
        if self.runner.executor_for(rows) is self.runner.executor:
            self.timetable.served(rows[0].size, rows[0].bucket, seconds)

    def _within_strict_batch(self, rows: list[Row]) -> list[Row]:
        """Leave out what makes the batch larger than strict rows in it allow: others, or these where others come
        first."""
        if not self.runner.needs_strict_batch(rows) or len(rows) <= self.runner.strict_batch[rows[0].size]:
            return rows
        if rows[0].strict:
            return rows[: self.runner.strict_batch[rows[0].size]]
        return [row for row in rows if not row.strict]

    def _begun(self) -> set[str]:
        return {row.task_key for row in self._rows.values() if row.start is not None}

    def _expire(self, now: float) -> None:
        late = [row for row in self._rows.values() if _missed(row, now)]
        if late:
            begun = self._begun()
            for row in late:
                if row.task_key not in begun:
                    self._fail(row, "expired", "the deadline passed before it could start")

    def _can_step(self, row: Row) -> bool:
        return row.step < self._steps and not self._is_held(row) and not self._waits(row)

    def _waits(self, row: Row) -> bool:
        return self.strict_waits and row.strict

    def _is_held(self, row: Row) -> bool:
        return row.owner is not None and self._sets[row.owner].holds(row)

    def _choose(self) -> None:
        """Drop the candidates that were not chosen, in every set that can choose now, and all of a set that failed."""
        for candidates in self._sets.values():
            for row in candidates.choose():
                del self._rows[row.key]
        for key in [key for key, candidates in self._sets.items() if candidates.failed]:
            self.withdraw([key])

    def _show_unfinished(self) -> None:
        """Show previews of rows whose job is watched; a failing preview harms no image.

        Where pictures are judged there are none, since a preview shows what may be refused.
        """
        if not self.watched or self.judge:
            return
        rows = [row for row in self._rows.values() if row.shown_step < row.step < self._steps]
        rows = [row for row in rows if row.task.job_id in self.watched and not self._is_held(row)]
        if rows:
            try:
                most = max(self.step_times[rows[0].size])
                self.show(decode_previews(rows, self._steps, self.runner.executor.decode, most))
            except RuntimeError as error:
                self.isolation.raise_if_lost(error)
                log.exception("no previews of this step")

    def _finished(self) -> list[Row]:
        """Return finished rows of one size, as many as are decoded together."""
        done = [row for row in self._rows.values() if row.step == self._steps and not self._is_held(row)]
        same_size = [row for row in done if row.size == done[0].size]
        return same_size[: max(self.step_times[done[0].size])] if done else []

    def _decode_finished(self) -> list[tuple[Decoded, list[CandidateSet | None]]]:
        """Decode finished rows, which leave the engine: each batch of them with the sets that its rows belong to."""
        decoded: list[tuple[Decoded, list[CandidateSet | None]]] = []

        def decode(rows: list[Row]) -> None:
            for part in self.runner.decode(rows):
                decoded.append((part, [self._sets.get(row.owner or "") for row in part.rows]))

        for row in self._survivors(self._finished(), decode, self._decode_fewer):
            del self._rows[row.key]
            if row.owner and all(other.owner != row.owner for other in self._rows.values()):
                del self._sets[row.owner]
        return decoded

    def _step_fewer(self, rows: list[Row]) -> None:
        self._planned = None
        self.rehearsal.forget(rows[0].size, len(self.runner.padded(rows)))

    def _decode_fewer(self, rows: list[Row]) -> None:
        self.runner.decode_fewer(rows)
        self.runner.free_memory()

    def _survivors(self, rows: list[Row], work: Work, out_of_memory: Work) -> list[Row]:
        """Do `work` on `rows`; returns those that it was done on and that are still here."""
        return [row for row in self.isolation.run(rows, work, out_of_memory) if row.key in self._rows]

    def _fail(self, row: Row, reason: FailureReason, detail: str) -> None:
        """Give up the whole task of `row`; of several failures the first is reported, and none of a task that was
        withdrawn while its step ran."""
        if self._rows.get(row.key) is not row:
            return
        candidates = self._sets.get(row.task_key)
        self.withdraw([row.task_key])
        if candidates:
            if candidates.failed:
                return
            candidates.failed = True
        self._failures.setdefault(row.task_key, Failure(row.task_key, reason, detail))


def _missed(row: Row, now: float) -> bool:
    """Return whether `row` has not begun although its deadline passed."""
    return row.start is None and row.task.deadline is not None and row.task.deadline < now
