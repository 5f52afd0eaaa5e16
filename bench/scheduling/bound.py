"""A mean latency that no policy can beat, not even one that knows what will arrive."""

from collections.abc import Sequence
from heapq import heappop, heappush
from statistics import mean

from bench.scheduling.simulation import Call, Device


def least_mean_latency(device: Device, calls: Sequence[Call]) -> float:
    """The greater of two means that no policy beats on a `device` without decoding.

    In one, each call has the device to itself. In the other, the device makes any share of an image at the rate of its
    best batch and always serves the call with the least work left, which is optimal there (Schrage, 1968).
    """
    return max(mean(_alone(device, call) for call in calls), _least_work_first(device, calls))


def _alone(device: Device, call: Call) -> float:
    """At least so long takes a call for whose rows every step is as efficient as it can be."""
    times = device.step_times[call.size]
    largest = max(times)
    if call.strict:
        return device.steps * times[largest] * max(1.0, call.images / largest)
    of_rows = {rows: min(times[size] for size in times if size >= rows) for rows in range(1, largest + 1)}
    of_image = min(time / rows for rows, time in of_rows.items() if rows <= call.images)
    return device.steps * max(of_rows[1], call.images * of_image)


def _least_work_first(device: Device, calls: Sequence[Call]) -> float:
    work_of_image = {
        size: device.steps * min(time / rows for rows, time in times.items())
        for size, times in device.step_times.items()
    }
    now, ended = 0.0, 0.0
    left: list[tuple[float, float]] = []
    for call in [*calls, None]:
        while left and (call is None or now < call.time):
            work, arrival = heappop(left)
            if call and now + work > call.time:
                heappush(left, (now + work - call.time, arrival))
                break
            now += work
            ended += now - arrival
        if call:
            now = call.time
            heappush(left, (call.images * work_of_image[call.size], call.time))
    return ended / len(calls)
