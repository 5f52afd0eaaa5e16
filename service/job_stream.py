"""A job's progress as server-sent events, derived from its state: a client may join late, and reconnect."""

import time
from collections.abc import AsyncIterator, Iterable

from fastapi import Request
from fastapi.sse import ServerSentEvent

from jobs.models import JobState, Preview, PreviewSubscription
from jobs.queue.job_client import JobClient
from jobs.queue.job_events import News
from service.context import ApiContext, base_url
from service.schemas.generate_response import GeneratedImage
from service.schemas.job_response import JobResponse
from service.waiting import POLL_S, next_news

# Ends the id of a stream's last event.
LAST = "-last"


class SentImages:
    """The images that a client has been sent. As a string it is the id of an event: indices as bits, in hexadecimal."""

    def __init__(self, event_id: str = "0") -> None:
        """Read the id of the client's last event; ValueError when it is not hexadecimal."""
        self._bits = int(event_id.removesuffix(LAST), 16)

    def __str__(self) -> str:
        return f"{self._bits:x}"

    def __contains__(self, index: int) -> bool:
        return bool(self._bits >> index & 1)

    def add(self, index: int) -> None:
        self._bits |= 1 << index


async def job_stream(
    context: ApiContext, queue: JobClient, request: Request, job_id: str, sent: SentImages
) -> AsyncIterator[ServerSentEvent]:
    """Events ``queued``, ``running``, ``preview`` and ``image`` as they occur, then one named by the final status.

    An ``image`` is sent for each finished image that is not in `sent`. Previews have no id and are sent once.
    """
    status, previewed, began = None, False, time.monotonic()
    subscription = PreviewSubscription(job_id=job_id, channel=context.events.preview_channel)
    with context.events.listen(job_id) as listener:
        await queue.subscribe_to_previews(subscription)
        await queue.watch(job_id, context.events.channel)
        while state := await queue.job(job_id):
            for event in _image_events(state, request, sent):
                yield event
            if state.status != status:
                status = state.status
                event_id = f"{sent}{LAST}" if state.settled else str(sent)
                yield ServerSentEvent(event=status, id=event_id, data=_json(JobResponse.of(state, base_url(request))))
            if state.settled:
                return
            for preview in unfinished(await next_news(listener, POLL_S), sent):
                if not previewed:
                    previewed = True
                    context.metrics.time_to_first_preview.observe(time.monotonic() - began)
                yield ServerSentEvent(event="preview", data=preview.model_dump(mode="json"))
            await queue.subscribe_to_previews(subscription)


def unfinished(news: Iterable[News], sent: SentImages) -> list[Preview]:
    """The previews among `news` whose finished images are not in `sent`."""
    return [one for one in news if isinstance(one, Preview) and one.index not in sent]


def _image_events(state: JobState, request: Request, sent: SentImages) -> list[ServerSentEvent]:
    events = []
    for result in state.results:
        if result.index not in sent:
            sent.add(result.index)
            image = GeneratedImage.linked(result, base_url(request))
            events.append(ServerSentEvent(event="image", id=str(sent), data=_json(image)))
    return events


def _json(model: JobResponse | GeneratedImage) -> dict:
    return model.model_dump(mode="json", exclude_none=True)
