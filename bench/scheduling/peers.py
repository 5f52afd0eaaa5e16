"""Policies of other servers: a batch runs from the first step of its images to the last."""

from itertools import islice

from bench.scheduling.simulation import Batch, Device, Held, Policy


def image_at_a_time(device: Device) -> Policy:
    """First come, first served, without batching."""
    return lambda held, now, backlogged: Batch([next(iter(held.values()))], device.steps)


def call_at_a_time(device: Device) -> Policy:
    """First come, first served; the images of one call share batches, calls do not."""

    def choose(held: Held, now: float, backlogged: bool) -> Batch:
        first = next(iter(held.values())).job
        return Batch([image for image in islice(held.values(), device.max_batch) if image.job is first], device.steps)

    return choose


def image_batching(device: Device, max_batch: int | None = None, wait: float = 0.0) -> Policy:
    """Dynamic batching as model servers have it: the oldest images of one size together.

    With `wait`, an idle worker gives a batch that is not full so much time from its oldest arrival on.
    """
    most = max_batch or device.max_batch

    def choose(held: Held, now: float, backlogged: bool) -> Batch | float:
        oldest = next(iter(held.values())).row
        images = list(islice((image for image in held.values() if image.row.size == oldest.size), most))
        until = oldest.created + wait
        return until if len(images) < most and now < until else Batch(images, device.steps)

    return choose


def call_batching(device: Device, max_batch: int | None = None, wait: float = 0.0) -> Policy:
    """Dynamic batching of whole calls as SGLang-Diffusion has it: with the oldest call those that are alike.

    Alike are calls for as many images of the same size. They join while all of their images fit; a call that does not
    fit alone runs in several batches. `wait` is as in `image_batching`. Source: get_next_batch_to_run in
    python/sglang/multimodal_gen/runtime/managers/scheduler.py.
    """
    most = max_batch or device.max_batch

    def choose(held: Held, now: float, backlogged: bool) -> Batch | float:
        oldest = next(iter(held.values())).job
        begun = oldest.left < oldest.call.images
        alike = (oldest.call.images, oldest.call.size)
        calls = 1 if begun else max(1, most // oldest.call.images)
        joined = dict.fromkeys(
            image.job for image in held.values() if (image.job.call.images, image.job.call.size) == alike
        )
        chosen = set(islice(joined, calls))
        images = list(islice((image for image in held.values() if image.job in chosen), most))
        until = oldest.call.time + wait
        return until if len(chosen) < calls and now < until else Batch(images, device.steps)

    return choose
