"""A call's images: admitted, waited for, and given up when nobody wants them any more."""

import asyncio
from collections.abc import Sequence

from fastapi import Request

from jobs.models import GivenUpReason, ImageTask, JobState
from jobs.queue.admission import Admission, IdempotencyKey, RateLimit
from service.context import ApiContext
from service.idempotency import still_running, used_for_another_body
from service.model_catalogue import ServedModel
from service.problems import ClientGoneError, Problem, deadline_expired, job_lost, overloaded, store_full
from service.rate_limit import over_the_rate
from service.waiting import cancel_on_disconnect, wait_until_settled


async def admit(
    context: ApiContext,
    request: Request,
    model: ServedModel,
    tasks: Sequence[ImageTask],
    idempotency_key: IdempotencyKey | None,
) -> Admission:
    """Queue one job's tasks, or find that its key names a finished job; a Problem for everything else."""
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
    model: ServedModel,
    tasks: Sequence[ImageTask],
    idempotency_key: IdempotencyKey | None = None,
) -> JobState:
    """The completed job of `tasks`, or the one that `idempotency_key` names.

    A Problem when the job fails or is late: then what is left of it is given up. ClientGone when the client hangs up:
    then too, unless the call is idempotent and may come again for its images.
    """
    job_id, deadline = tasks[0].job_id, tasks[0].deadline
    assert deadline is not None
    with context.events.listen(job_id) as listener:
        admission = await admit(context, request, model, tasks, idempotency_key)
        if admission.outcome == "finished":
            return await finished_job(request, model, admission.job_id)
        try:
            state = await cancel_on_disconnect(request, wait_until_settled(model.queue, listener, job_id, deadline))
            raise_failure(state)
        except (ClientGoneError, asyncio.CancelledError):  # it hung up, or this process stops and hangs up on it
            if idempotency_key is None:
                cancel_in_background(context, model, job_id)
            raise
        except Problem as problem:
            late = problem.details.status == 504
            await cancel(context, model, job_id, problem.details.detail, "expired" if late else "cancelled")
            raise
    return state


async def finished_job(request: Request, model: ServedModel, job_id: str) -> JobState:
    """A job made for an earlier call; the request counts as answered from there."""
    state = await model.queue.job(job_id)
    if state is None:
        raise job_lost()
    request.state.outcome, request.state.job_id = "cached", job_id
    return state


def raise_failure(state: JobState) -> None:
    """Problem for the first failed image of `state`, if there is one."""
    for failure in state.failures:
        if failure.reason == "expired":
            raise deadline_expired()
        if failure.reason == "cancelled":
            raise Problem(409, "job-cancelled", "The job was cancelled", f"Image {failure.index}: {failure.detail}")
        detail = f"Image {failure.index}: {failure.detail}"
        raise Problem(500, "generation-error", "An image could not be made", detail)


def cancel_in_background(context: ApiContext, model: ServedModel, job_id: str) -> None:
    """Give up a job whose client is gone, by a task of its own: the caller's may be cancelled at every await."""
    cancelling = asyncio.create_task(cancel(context, model, job_id, "the client's connection was closed"))
    context.cancelling.add(cancelling)
    cancelling.add_done_callback(context.cancelling.discard)


async def cancel(
    context: ApiContext, model: ServedModel, job_id: str, detail: str, reason: GivenUpReason = "cancelled"
) -> None:
    """Cancel what is left of a job."""
    await model.queue.cancel(job_id, detail, reason, context.settings.result_ttl_s)
