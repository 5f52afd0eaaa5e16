"""OpenAI's streamed images: partial images from the previews, then each image when it is finished."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from pydantic_core import to_json
from redis.exceptions import RedisError

from jobs.image_store import ImageStoreError
from jobs.models import ImageResult, Preview, PreviewSubscription
from service.generation import Call, admit, cancelled_on_error, finished_job, raise_failure
from service.job_stream import SentImages, unfinished
from service.openai.image_form import ImageForm
from service.openai.schemas import NO_USAGE
from service.problems import DeadlineExpiredError, Problem, job_lost, redis_away, store_away
from service.schemas.request_warnings import RequestWarning, unread_prompt
from service.waiting import news_before, stored_job

ALWAYS = {"background": "opaque", "quality": "auto"}


def partial_steps(partial_images: int, steps: int) -> list[int]:
    """The denoising steps (of `steps`) after which a partial image is sent: evenly spread, without the last one."""
    shown = min(partial_images, steps - 1)
    return [round(number * steps / (shown + 1)) for number in range(1, shown + 1)]


async def image_stream(
    call: Call, form: ImageForm, partial_images: int, warnings: list[RequestWarning]
) -> AsyncIterator[bytes]:
    """Server-sent events of one call. The first is a comment, when the call is admitted; a refusal raises a Problem.

    Comments keep the connection open while nothing happens. A later Problem becomes an ``error`` event, and the rest
    of the job is cancelled, see `cancelled_on_error`.
    """
    stream = _Stream(call, form, partial_steps(partial_images, call.model.card.steps), warnings)
    with call.context.events.listen(call.job_id) as listener:
        await stream.subscribe()
        admission = await admit(call)
        yield format_sse_event(comment=f"job {admission.job_id}")
        try:
            if admission.outcome == "finished":
                finished = await finished_job(call, admission)
                stream.queue = call.context.catalogue.queue(finished.model)
                for result in finished.results:
                    async with stream.event_of(result) as event:
                        yield event
                return
            async with cancelled_on_error(call):
                while True:
                    state = await stored_job(call.model.queue, call.job_id)
                    for result in state.results:
                        if result.index not in stream.sent:
                            async with stream.event_of(result) as event:
                                yield event
                    raise_failure(state)
                    if state.settled:
                        return
                    news = await news_before(listener, call.deadline)
                    if not news:
                        yield KEEPALIVE_COMMENT
                    for preview in unfinished(news, stream.sent):
                        if preview.step in stream.steps:
                            yield stream.partial(preview)
                    await stream.subscribe()
        except (asyncio.CancelledError, GeneratorExit):
            call.request.state.outcome = "cancelled"
            raise
        except Problem as problem:
            call.request.state.outcome = "expired" if isinstance(problem, DeadlineExpiredError) else "error"
            yield _failed(problem)
        except (RedisError, ImageStoreError) as error:
            call.request.state.outcome = "error"
            yield _failed(store_away() if isinstance(error, ImageStoreError) else redis_away())


class _Stream:
    """The events of one call: `sent` are the images that the client has, `steps` those after which it gets previews."""

    def __init__(self, call: Call, form: ImageForm, steps: list[int], warnings: list[RequestWarning]) -> None:
        self._form = form
        self._warnings = warnings
        self.sent = SentImages()
        self.steps = steps
        self._metrics = call.context.metrics
        self.queue = call.model.queue
        self._room, self._caller = call.context.room, call.request.state.caller
        channel = call.context.events.preview_channel
        self._subscription = PreviewSubscription(job_id=call.job_id, channel=channel)
        self._began = time.monotonic()
        self._previewed = False

    async def subscribe(self) -> None:
        """Ask the workers for previews of the next few seconds, if the client wants any."""
        if self.steps:
            await self.queue.subscribe_to_previews(self._subscription)

    def partial(self, preview: Preview) -> bytes:
        if not self._previewed:
            self._previewed = True
            self._metrics.time_to_first_preview.observe(time.monotonic() - self._began)
        data = _image(preview) | {"b64_json": preview.b64, "partial_image_index": self.steps.index(preview.step)}
        return _event(f"{self._form.events}.partial_image", data)

    @asynccontextmanager
    async def event_of(self, result: ImageResult) -> AsyncIterator[bytes]:
        """The event of a finished image, which takes room until it is written; Problem 503 when it has expired."""
        if not self._form.inline:
            yield self._completed(result, None)
            return
        size, _ = await self.queue.image_head(result.sha256, result.format, 0)
        async with self._room.taken(self._caller, 4 * size):
            data = await self.queue.image(result.sha256, result.format)
            if data is None:
                raise job_lost()
            yield self._completed(result, data)

    def _completed(self, result: ImageResult, data: bytes | None) -> bytes:
        self.sent.add(result.index)
        image = self._form.streamed(result, data).model_dump(exclude_none=True)
        about = _image(result) | image
        if warnings := [*self._warnings, *unread_prompt([result])]:
            about["warnings"] = [warning.model_dump() for warning in warnings]
        return _event(f"{self._form.events}.completed", about | {"usage": NO_USAGE})


def _image(about: Preview | ImageResult) -> dict[str, Any]:
    """The fields of an image event; `index` and `seed` are additions to OpenAI's."""
    size = f"{about.width}x{about.height}"
    described = {"created_at": int(time.time()), "output_format": about.format, "size": size, **ALWAYS}
    return described | {"index": about.index, "seed": about.seed}


def _failed(problem: Problem) -> bytes:
    return _event("error", {"error": problem.for_openai().model_dump()})


def _event(name: str, data: dict[str, Any]) -> bytes:
    return format_sse_event(event=name, data_str=to_json({"type": name, **data}).decode())
