"""A call's images: admitted, waited for, and given up when nobody wants them any more."""

from collections.abc import Sequence

from fastapi import Request

from jobs.models import GivenUpReason, ImageTask, JobState
from service.context import ApiContext
from service.model_catalogue import ServedModel
from service.problems import ClientGone, Problem, deadline_expired, overloaded
from service.waiting import unless_gone, wait_until_settled


async def admit(context: ApiContext, model: ServedModel, tasks: Sequence[ImageTask]) -> None:
    """Queue one job's tasks; Problem 429 when there is no room."""
    settings = context.settings
    admission = await model.queue.admit(
        tasks, settings.max_queued_images, settings.result_ttl_s, context.events.channel
    )
    if not admission.ok:
        detail = f"{admission.queued_images} images are waiting, at most {settings.max_queued_images} may"
        raise overloaded("queue-full", f"{detail} (max_queued_images).")


async def generate_while_connected(
    context: ApiContext, request: Request, model: ServedModel, tasks: Sequence[ImageTask]
) -> JobState:
    """The job of `tasks`, completed. A Problem when it fails or is late, ClientGone when the client hangs up.

    In each of these cases what is left of the job is given up.
    """
    job_id, deadline = tasks[0].job_id, tasks[0].deadline
    assert deadline is not None
    with context.events.listen(job_id) as listener:
        await admit(context, model, tasks)
        try:
            state = await unless_gone(request, wait_until_settled(model.queue, listener, job_id, deadline))
            raise_failure(state)
        except ClientGone:
            await model.queue.cancel(job_id, "the client closed the connection", ttl_s=context.settings.result_ttl_s)
            raise
        except Problem as problem:
            reason: GivenUpReason = "expired" if problem.details.status == 504 else "cancelled"
            await model.queue.cancel(job_id, problem.details.detail, reason, context.settings.result_ttl_s)
            raise
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
