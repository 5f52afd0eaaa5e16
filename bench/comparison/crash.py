"""kill -9 of the process that draws, while calls wait: `python -m bench.comparison.crash`.

All calls are accepted before the kill. A call is lost when it has no picture after PATIENCE_S, or fails; callers do not
repeat it. Then a new call shows whether the system comes back by itself.
"""

import argparse
import asyncio
import time
from functools import partial
from itertools import islice
from typing import Any

from rich.progress import track

from bench import results_file
from bench.comparison import trace
from bench.comparison.client import Client, draws
from bench.comparison.server import Server, running
from bench.comparison.systems import SYSTEMS, System, Tuning

NAME = "comparison_crash"
CALLS, KILL_AFTER = 24, 4
PATIENCE_S, RECOVERY_S = 60.0, 40.0
OURS = {"FOURSTEP_LEASE_S": "5"}
"""Seconds after which a silent worker's images are taken over; the default is 15."""


def trial(system: System) -> dict[str, Any]:
    with running(system, "sampler", Tuning(), partial(draws, system), OURS if system.ours else None) as server:
        return asyncio.run(_killed(server))


async def _killed(server: Server) -> dict[str, Any]:
    client = Client(server.system, server.ports.http, patience_s=PATIENCE_S)
    await client.closed_loop(trace.singles(8, -2), 4)
    client.pictures.clear()
    victim = server.model_process()
    calls = trace.singles(CALLS, 200)
    now = time.perf_counter()
    pending = [asyncio.create_task(client.send(call, now)) for call in calls]
    for answered in islice(asyncio.as_completed(pending), KILL_AFTER):
        await answered
    victim.kill()
    killed = time.perf_counter()
    answered_before = len(client.pictures)
    answers = await asyncio.gather(*pending)
    settled_s = time.perf_counter() - killed
    pictures = [len(made) for made in client.pictures.values()]
    return {
        "calls": CALLS,
        "answered_before_the_kill": answered_before,
        "lost": sum(not answer.ok for answer in answers),
        "duplicated": sum(pictures) - len(pictures),
        "statuses": sorted({answer.status for answer in answers}),
        "settled_s": round(settled_s, 1),
        "serves_again_s": await _recovery(server, killed),
    }


async def _recovery(server: Server, killed: float) -> float | None:
    """Seconds from the kill to a picture for a new call; None when there was none for RECOVERY_S."""
    client = Client(server.system, server.ports.http, patience_s=PATIENCE_S)
    until = time.perf_counter() + RECOVERY_S
    while time.perf_counter() < until:
        try:
            async with asyncio.timeout(until - time.perf_counter()):
                [answer] = await client.together(trace.singles(1, 201))
        except TimeoutError:
            return None
        if answer.ok:
            return round(time.perf_counter() - killed, 1)
        await asyncio.sleep(0.2)
    return None


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.comparison.crash", description=__doc__)
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument(
        "--shared", action="store_true", help="the machine has other work: times are not to be compared"
    )
    arguments = parser.parse_args()
    installed = [SYSTEMS[name] for name in arguments.systems if SYSTEMS[name].installed]
    trials = {system.name: trial(system) for system in track(installed, "kill -9")}
    results_file.write(NAME, {"shared": arguments.shared, "systems": trials})


if __name__ == "__main__":
    main()
