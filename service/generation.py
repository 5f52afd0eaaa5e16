"""The course of a call: admit its images, wait for them, and cancel them when the call ends early."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import Request

from jobs.models import GivenUpReason, ImageTask, JobState
from jobs.queue.admission import Admission, IdempotencyKey, RateLimit
from service.context import ApiContext
from service.idempotency import still_running, used_for_another_body
from service.model_catalogue import AnnouncedModel
from service.problems import ClientGoneError, DeadlineExpiredError, Problem, overloaded, store_full
from service.rate_limit import over_the_rate
from service.waiting import cancel_on_disconnect, stored_job, wait_until_settled


async def admit(
    context: ApiContext,
    request: Request,
    model: AnnouncedModel,
    tasks: Sequence[ImageTask],
    idempotency_key: IdempotencyKey | None,
) -> Admission:
    """Queue one job's tasks, or find the finished job that `idempotency_key` names; any other outcome is a Problem."""
    settings = context.settings
    request.state.job_id = tasks[0].job_id
    rate = RateLimit(request.state.caller, settings.rate_limit) if settings.rate_limit else None
    admission = await model.queue.admit(
        tasks,
        settings.max_queued_images,
        settings.result_ttl_s,
        context.events.channel,
        idempotency_key=idempotency_key,
        rate=rate,
    )
    if admission.outcome == "limited" and rate:
        raise over_the_rate(admission, rate)
    if admission.outcome == "full":
        detail = f"{admission.queued_images} images are waiting, at most {settings.max_queued_images} may"
        raise overloaded("queue-full", f"{detail} (max_queued_images).", admission.wait_s)
    if admission.outcome == "store-full":
        raise store_full()
    if admission.outcome == "running":
        raise still_running(admission)
    if admission.outcome == "mismatch":
        raise used_for_another_body()
    return admission


async def generate_while_connected(
    context: ApiContext,
    request: Request,
    model: AnnouncedModel,
    tasks: Sequence[ImageTask],
    idempotency_key: IdempotencyKey | None = None,
) -> JobState:
    """Queue `tasks` and wait: the completed job, or the earlier one that `idempotency_key` names.

    Raises a Problem when the job fails or its deadline passes, ClientGoneError when the client hangs up; see
    `cancelled_on_error`.
    """
    job_id, deadline = tasks[0].job_id, tasks[0].deadline
    assert deadline is not None
    with context.events.listen(job_id) as listener:
        admission = await admit(context, request, model, tasks, idempotency_key)
        if admission.outcome == "finished":
            return await finished_job(request, model, admission.job_id)
        async with cancelled_on_error(context, model, job_id, idempotency_key):
            state = await cancel_on_disconnect(request, wait_until_settled(model.queue, listener, job_id, deadline))
            raise_failure(state)
    return state


@asynccontextmanager
async def cancelled_on_error(
    context: ApiContext, model: AnnouncedModel, job_id: str, idempotency_key: IdempotencyKey | None
) -> AsyncIterator[None]:
    """Cancel what is left of the job when the block raises, and raise the same.

    A Problem cancels it at once: with the reason ``expired`` after the deadline. When the client hangs up, or this
    process stops and hangs up on it, the job is cancelled in the background; not if the call has an `idempotency_key`,
    since the client may send it again for its images.
    """
    try:
        yield
    except (ClientGoneError, asyncio.CancelledError, GeneratorExit):
        if idempotency_key is None:
            cancel_in_background(context, model, job_id)
        raise
    except Problem as problem:
        late = isinstance(problem, DeadlineExpiredError)
        await cancel(context, model, job_id, problem.details.detail, "expired" if late else "cancelled")
        raise


async def finished_job(request: Request, model: AnnouncedModel, job_id: str) -> JobState:
    """The job of an earlier call, whose images answer this one; metrics count the request as ``cached``."""
    state = await stored_job(model.queue, job_id)
    request.state.outcome, request.state.job_id = "cached", job_id
    return state


def raise_failure(state: JobState) -> None:
    """Raise a Problem for the first failed image of `state`, if there is one."""
    for failure in state.failures:
        if failure.reason == "expired":
            raise DeadlineExpiredError
        if failure.reason == "cancelled":
            raise Problem(409, "job-cancelled", "The job was cancelled", f"Image {failure.index}: {failure.detail}")
        detail = f"Image {failure.index}: {failure.detail}"
        raise Problem(500, "generation-error", "An image could not be made", detail)


def cancel_in_background(context: ApiContext, model: AnnouncedModel, job_id: str) -> None:
    """Cancel a job whose client is gone, in a task of its own, since the caller's task may itself be cancelled."""
    cancelling = asyncio.create_task(cancel(context, model, job_id, "the client's connection was closed"))
    context.cancelling.add(cancelling)
    cancelling.add_done_callback(context.cancelling.discard)


async def cancel(
    context: ApiContext, model: AnnouncedModel, job_id: str, detail: str, reason: GivenUpReason = "cancelled"
) -> None:
    """Cancel what is left of a job."""
    await model.queue.cancel(job_id, detail, reason, context.settings.result_ttl_s)
