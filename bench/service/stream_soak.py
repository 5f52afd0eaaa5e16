"""A hundred thousand calls, a thousand at a time followed by their event streams: does the API's memory stay flat?

One API, one Redis, and a worker without an engine that makes `rate` images a second, so that the calls of all clients
wait. Each client makes an asynchronous call and follows its events to the end, again and again. ``make soak LONG=1``.
"""

import asyncio
import json
import resource
from collections import Counter
from statistics import linear_regression

import httpx
import typer

from bench import results_file
from bench.service import http_load
from bench.service.front_end import Stack, front_end

MIB = 2**20
SAMPLE_EVERY_S = 1.0
# Longer than a client waits for its turn when a thousand begin at once.
TTL_S = 60.0


class StreamSoak:
    """The clients, and what they saw: the last event of each stream, and the memory of each part."""

    def __init__(self, stack: Stack, calls: int) -> None:
        self.ends: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self.most_streams = 0
        self.memory: list[tuple[int, dict[str, float]]] = []
        self._stack = stack
        self._left = iter(range(calls))

    async def run(self, streams: int) -> None:
        async with asyncio.TaskGroup() as group:
            clients = [group.create_task(self._client()) for _ in range(streams)]
            async with httpx.AsyncClient(trust_env=False, timeout=600) as http:
                while not all(client.done() for client in clients):
                    await self._sample(http)
                    await asyncio.sleep(SAMPLE_EVERY_S)

    async def _client(self) -> None:
        for number in self._left:
            connection = await http_load.Connection.open(self._stack.port)
            body = json.dumps({"prompt": f"a cat {number}", "timeout": 600}).encode()
            status, head, _ = await connection.exchange(_accepted_later(body))
            self.statuses[status] += 1
            if status == 202:
                location = head.partition(b"location: ")[2].partition(b"\r\n")[0].decode()
                path = "/jobs/" + location.partition("/jobs/")[2]
                _, _, events = await connection.exchange(f"GET {path}/events HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
                self.ends[events.rpartition(b"event: ")[2].partition(b"\n")[0].decode().strip()] += 1
            connection.close()

    async def _sample(self, http: httpx.AsyncClient) -> None:
        metrics = (await http.get(f"http://127.0.0.1:{self._stack.port}/metrics")).text
        gauge = metrics.partition("\nfourstep_event_streams ")[2].partition("\n")[0]
        self.most_streams = max(self.most_streams, int(float(gauge)))
        resident = {name: part.memory_info().rss / MIB for name, part in self._stack.parts.items()}
        self.memory.append((self.ends.total(), resident))


def _accepted_later(body: bytes) -> bytes:
    return http_load.post("/generate", body).replace(b"\r\n", b"\r\nPrefer: respond-async\r\n", 1)


def report(soak: StreamSoak, calls: int, streams: int) -> tuple[dict, list[str]]:
    """The figures, with the slope of memory over the second half of the calls, and the faults found in them."""
    half = [sample for sample in soak.memory if sample[0] >= calls / 2]
    done, resident = zip(*half, strict=True)
    figures = {
        "calls": calls,
        "streams": streams,
        "most_streams_open": soak.most_streams,
        "statuses": dict(soak.statuses),
        "last_events": dict(soak.ends),
        "resident_mib": {
            name: {"half way": round(resident[0][name], 1), "end": round(resident[-1][name], 1)} for name in resident[0]
        },
        "slope_mib_per_1000_calls": {
            name: round(linear_regression(done, [sample[name] for sample in resident]).slope * 1000, 4)
            for name in resident[0]
        },
    }
    faults = []
    if soak.ends != {"completed": calls}:
        faults.append("not every call ended with its image")
    if soak.most_streams < 0.9 * streams:
        faults.append("the streams were not open at once")
    return figures, faults


def main(calls: int = 100_000, streams: int = 1000, rate: float = 300.0) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    settings = {"MAX_EVENT_STREAMS": 2 * streams, "MAX_CONNECTIONS": 3 * streams, "MAX_QUEUED_IMAGES": 2 * streams}
    api = {f"FOURSTEP_{name}": str(value) for name, value in settings.items()}
    worker = ["bench.service.null_worker", "--rate", str(rate), "--ttl-s", str(TTL_S)]
    with front_end(worker, api) as stack:
        soak = StreamSoak(stack, calls)
        asyncio.run(soak.run(streams))
    figures, faults = report(soak, calls, streams)
    print(json.dumps(figures, indent=2))
    results_file.write("stream_soak", {**figures, "faults": faults})
    if faults:
        raise SystemExit("; ".join(faults))


if __name__ == "__main__":
    typer.run(main)
