"""The course of a call: admit its images, wait for them, and cancel them when the call ends early."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from fastapi import Request

from jobs.models import GivenUpReason, ImageTask, JobState, SourcePicture, WebhookTarget
from jobs.queue.admission import Admission, IdempotencyKey, RateLimit
from jobs.queue.pictures.sources import Source
from service.context import ApiContext, job_location
from service.idempotency import still_running, used_for_another_body
from service.inputs.source_pictures import PictureInput, begun_from, check_taken
from service.limits.rate_limit import over_the_rate, rate_of
from service.model_catalogue import AnnouncedModel
from service.problems import ClientGoneError, DeadlineExpiredError, Problem, overloaded, store_full, store_unwritable
from service.waiting import cancel_on_disconnect, stored_job, wait_until_settled


@dataclass(frozen=True)
class Call:
    """A call for images: one job of `tasks` for `model`; `idempotency_key` is None where the client sent none.

    `source` is the picture that the tasks begin from, if any; `earlier` is the admission of an earlier call that
    answers this one, where it is known already. `images_field` says in the request how many images are made. `began` is
    a time of `time.monotonic`.
    """

    context: ApiContext
    request: Request
    model: AnnouncedModel
    tasks: Sequence[ImageTask]
    idempotency_key: IdempotencyKey | None
    webhook: WebhookTarget | None = None
    source: Source | None = None
    images_field: str = "num_images"
    earlier: Admission | None = None
    began: float = field(default_factory=time.monotonic)

    @property
    def job_id(self) -> str:
        return self.tasks[0].job_id

    @property
    def deadline(self) -> float:
        """Time of `time.monotonic`, in seconds, at which the call ends without the images."""
        patience_s = self.tasks[0].patience_s
        assert patience_s is not None
        return self.began + patience_s


async def with_picture(call: Call, given: PictureInput) -> Call:
    """The call with its picture, as `SourcePictures.source_of` reads it; or with the earlier job that its key names.

    A call that the limits refuse is refused before its picture is decoded. Raises DeadlineExpiredError when all this
    takes longer than the call may, ClientGoneError when the client hangs up.
    """
    try:
        async with asyncio.timeout(call.deadline - time.monotonic()):
            return await cancel_on_disconnect(call.request, _with_picture(call, given))
    except TimeoutError:
        raise DeadlineExpiredError from None


async def _with_picture(call: Call, given: PictureInput) -> Call:
    request, pictures = call.request, call.context.pictures
    check_taken(call.model.card)
    call = replace(call, tasks=begun_from(SourcePicture(image="", strength=given.least_strength), call.tasks))
    turn = pictures.turn(request.state.caller or (request.client.host if request.client else ""))
    with call.context.metrics.inputs_waiting.track_inprogress():
        async with turn:
            if earlier := await _foreseen(call):
                return replace(call, earlier=earlier)
            source = await pictures.source_of(given, (call.tasks[0].width, call.tasks[0].height))
    return replace(call, source=source, tasks=begun_from(source.picture, call.tasks))


async def _foreseen(call: Call) -> Admission | None:
    """The admission of an earlier call with the same key, if there is one; raises a Problem where `admit` would."""
    most, rate = call.context.settings.max_queued_images, _rate(call)
    admission = await call.model.queue.foreseen(call.tasks, most, idempotency_key=call.idempotency_key, rate=rate)
    return admission and _granted(call, admission, rate)


async def admit(call: Call) -> Admission:
    """Queue the call's job, or find the finished job that its idempotency key names; any other outcome is a Problem."""
    if call.earlier:
        return call.earlier
    settings, state = call.context.settings, call.request.state
    state.job_id = call.job_id
    rate = _rate(call)
    admission = await call.model.queue.admit(
        call.tasks,
        settings.max_queued_images,
        settings.result_ttl_s,
        call.context.events.channel,
        model_sha=call.model.card.sha256,
        client=state.caller,
        idempotency_key=call.idempotency_key,
        rate=rate,
        webhook=call.webhook,
        inputs=call.source.by_address if call.source else {},
    )
    return _granted(call, admission, rate)


def _rate(call: Call) -> RateLimit | None:
    card, settings = call.model.card, call.context.settings
    return rate_of(call.request.state.caller, call.tasks, card, settings, call.images_field)


def _granted(call: Call, admission: Admission, rate: RateLimit | None) -> Admission:
    """The admission of the call, or of the finished job that answers it; any other one is a Problem."""
    if refusal := _refusal(call, admission, rate):
        raise refusal
    if admission.outcome == "running":
        raise still_running(job_location(admission.job_id, call.request))
    if admission.outcome == "mismatch":
        raise used_for_another_body()
    return admission


def _refusal(call: Call, admission: Admission, rate: RateLimit | None) -> Problem | None:
    """The problem of a call that a limit refuses, or that too few replicas of Redis have."""
    if admission.outcome == "limited" and rate:
        return over_the_rate(admission, rate)
    if admission.outcome == "full":
        most = call.context.settings.max_queued_images
        detail = f"{admission.queued_images} images are waiting, at most {most} may (max_queued_images)."
        return overloaded("queue-full", detail, "queue", admission.wait_s)
    if admission.outcome == "unreplicated":
        return store_unwritable()
    return store_full() if admission.outcome == "store-full" else None


async def generate_while_connected(call: Call) -> JobState:
    """Queue the call's job and wait: the completed job, or the earlier one that the idempotency key names.

    Raises a Problem when the job fails or its deadline passes, ClientGoneError when the client hangs up; see
    `cancelled_on_error`.
    """
    with call.context.events.listen(call.job_id) as listener:
        admission = await admit(call)
        if admission.outcome == "finished":
            return await finished_job(call, admission)
        async with cancelled_on_error(call):
            settled = wait_until_settled(call.model.queue, listener, call.job_id, call.deadline)
            state = await cancel_on_disconnect(call.request, settled)
            raise_failure(state)
    return state


@asynccontextmanager
async def cancelled_on_error(call: Call) -> AsyncIterator[None]:
    """Cancel what is left of the job when the block raises, and raise the same.

    A Problem cancels it at once: with the reason ``expired`` after the deadline. When the client hangs up, or this
    process stops and hangs up on it, the job is cancelled in the background; not if the call has an idempotency key,
    since the client may send it again for its images.
    """
    try:
        yield
    except (ClientGoneError, asyncio.CancelledError, GeneratorExit):
        if call.idempotency_key is None:
            # In a task of its own, since this one may itself be cancelled.
            cancelling = asyncio.create_task(_cancel(call, "the client's connection was closed"))
            call.context.cancelling.add(cancelling)
            cancelling.add_done_callback(call.context.cancelling.discard)
        raise
    except Problem as problem:
        late = isinstance(problem, DeadlineExpiredError)
        await _cancel(call, problem.details.detail, "expired" if late else "cancelled")
        raise


async def _cancel(call: Call, detail: str, reason: GivenUpReason = "cancelled") -> None:
    await call.model.queue.cancel(call.job_id, detail, reason, call.context.settings.result_ttl_s)


async def finished_job(call: Call, admission: Admission) -> JobState:
    """The job of an earlier call, whose images answer this one; metrics count the request as ``cached``.

    409 Problem when it is not finished any more: a replica that follows with a delay has taken Redis's place.
    """
    state = await stored_job(call.context.catalogue.queue(admission.model), admission.job_id)
    if not state.settled:
        raise still_running(job_location(admission.job_id, call.request))
    call.request.state.outcome, call.request.state.job_id = "cached", admission.job_id
    return state


def raise_failure(state: JobState) -> None:
    """Raise a Problem for the first failed image of `state`, if there is one."""
    for failure in state.failures:
        if failure.reason == "expired":
            raise DeadlineExpiredError
        if failure.reason == "refused":
            raise Problem(422, "image-refused", "A picture was refused", f"Image {failure.index}: {failure.detail}")
        if failure.reason == "cancelled":
            raise Problem(409, "job-cancelled", "The job was cancelled", f"Image {failure.index}: {failure.detail}")
        detail = f"Image {failure.index}: {failure.detail}"
        if failure.transient:
            raise Problem(503, "model-changed", "The model has just changed", f"{detail}; send the call again.")
        raise Problem(500, "generation-error", "An image could not be made", detail)
