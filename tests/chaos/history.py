"""Calls and answers, in the order of the answers: all that a run is judged by, with its end."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Answer:
    """The answer to one attempt at a call.

    `call` is the call's name, the same for each attempt at it; `status` is HTTP's, "broken" for a connection that broke
    off and "gone" for a client that hung up. `job` is the job that it names, `images` are the hashes of its images by
    index, and `intact` says whether the bytes of all of them have their hash.
    """

    call: str
    seeds: tuple[int, ...]
    status: str
    job: str | None = None
    reason: str = ""
    image_seeds: tuple[int, ...] = ()
    images: dict[int, str] = field(default_factory=dict)
    intact: bool = True
    retry_after: bool = False

    @property
    def acknowledged(self) -> bool:
        """Return whether it promises the job: accepted, answered, or still running."""
        return self.job is not None and self.status in ("200", "202", "409")


@dataclass(frozen=True)
class End:
    """The end of a job, read when all was over: its images' hashes and its failures' reasons by index.

    `models` are the hashes of the models that made the images, by index; `solo` are the hashes of the same images made
    again, one after the other, where that was done.
    """

    images: dict[int, str] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)
    models: dict[int, str] = field(default_factory=dict)
    solo: dict[int, str] = field(default_factory=dict)


@dataclass
class History:
    """All answers of a run."""

    answers: list[Answer] = field(default_factory=list)

    def add(self, answer: Answer) -> None:
        self.answers.append(answer)

    @property
    def jobs(self) -> dict[str, tuple[int, ...]]:
        """The seeds of every acknowledged job, as first promised."""
        jobs: dict[str, tuple[int, ...]] = {}
        for answer in self.answers:
            if answer.acknowledged and answer.job is not None:
                jobs.setdefault(answer.job, answer.seeds)
        return jobs

    @property
    def poisoned(self) -> set[str]:
        """The jobs of prompts that were sent to kill their worker."""
        return {answer.job for answer in self.answers if answer.job is not None and answer.call.startswith("poison")}

    @property
    def calls(self) -> int:
        """The number of calls that had an answer, each counted once however often it was sent."""
        return len({answer.call for answer in self.answers})

    @property
    def images(self) -> int:
        """The number of acknowledged images."""
        return sum(map(len, self.jobs.values()))
