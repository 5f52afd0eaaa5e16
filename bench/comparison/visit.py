"""One visit to one system: start it, send single calls, closed loops and open loops, and stop it."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from bench.comparison import trace
from bench.comparison.client import Client, draws, pixels_sha256
from bench.comparison.figures import Answer
from bench.comparison.server import Server, running
from bench.comparison.systems import Engine, System, Tuning

WARM_UP = 24


@dataclass(frozen=True)
class Plan:
    """Number of calls in each part of a visit; `trace` and `overload` count calls of the recorded trace."""

    alone: int = 12
    closed: tuple[tuple[int, int], ...] = ((4, 24), (16, 64))
    trace: int = 60
    overload: int = 0
    equality: int = 12
    strict: int = 0


@dataclass(frozen=True)
class Bare:
    """The engine without a server: images a second, and seconds of a call alone by its number of images."""

    images_per_s: float
    alone_s: dict[int, float]


LOAD, OVERLOAD = 0.7, 1.3


def visit(system: System, engine: Engine, tuning: Tuning, bare: Bare, plan: Plan) -> dict[str, Any]:
    """Raw figures of one visit; raises DidNotStart."""
    with running(system, engine, tuning, partial(draws, system)) as server:
        return asyncio.run(_measured(server, engine, bare, plan))


async def _measured(server: Server, engine: Engine, bare: Bare, plan: Plan) -> dict[str, Any]:
    client = Client(server.system, server.ports.http)
    busy = server.cpu_by_thread(server.model_process())
    await client.closed_loop(trace.singles(WARM_UP, -2), 8)
    server.pin(busy)
    alone, _ = await client.closed_loop(trace.singles(plan.alone, 1), 1)
    found: dict[str, Any] = {
        "first_picture_s": round(server.first_picture_s, 2),
        "alone": _as_json(alone),
        "closed": {},
    }
    for concurrency, images in plan.closed:
        before = server.batches()
        answers, finished = await client.closed_loop(trace.singles(images, concurrency), concurrency)
        found["closed"][str(concurrency)] = {
            "answers": _as_json(answers),
            "finished": [round(seconds, 4) for seconds in finished],
            "batches": dict(server.batches() - before),
        }
    found |= await _replayed(server, client, bare, plan)
    if engine != "latency-model" and plan.equality:
        found["bit_equal"] = await _bit_equal(client, trace.singles(plan.equality, 100))
        if server.system.ours and plan.strict:
            strict = Client(server.system, server.ports.http, mode="strict")
            found["bit_equal_strict"] = await _bit_equal(strict, trace.singles(plan.strict, 101))
    found["memory_mib"] = round(server.memory_mib(), 1)
    return found


async def _replayed(server: Server, client: Client, bare: Bare, plan: Plan) -> dict[str, Any]:
    """The trace at the usual load, and above what the engine can do."""
    found: dict[str, Any] = {}
    for name, calls, load in (("replay", plan.trace, LOAD), ("overload", plan.overload, OVERLOAD)):
        if calls:
            before, cpu = server.batches(), server.cpu_s()
            answers = await client.replay(trace.load()[:calls], load * bare.images_per_s, bare.alone_s[1])
            images = sum(answer.images for answer in answers)
            found[name] = {
                "answers": _as_json(answers),
                "batches": dict(server.batches() - before),
                "cpu_s_per_image": round((server.cpu_s() - cpu) / images, 5),
            }
    return found


async def _bit_equal(client: Client, calls: Sequence[trace.Call]) -> dict[str, int]:
    """Number of pictures that are the same when requested alone and all at once."""
    await client.closed_loop(calls, 1)
    await client.together(calls)
    shas = [[pixels_sha256(picture) for picture in client.pictures[call.prompt, call.seed]] for call in calls]
    return dict(Counter({"asked": len(calls), "equal": sum(len(pair) == 2 and len(set(pair)) == 1 for pair in shas)}))


def _as_json(answers: Sequence[Answer]) -> list[tuple[int, int, float]]:
    """Images, status and seconds of each answer."""
    return [(answer.images, answer.status, round(answer.seconds, 4)) for answer in answers]
