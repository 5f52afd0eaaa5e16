"""`python -m tests.chaos.rolling PREVIOUS`: upgrades and rolls back between another checkout and this one, under load.

Clients call all copies of the API without a pause, each call twice under its key, while workers and API copies are
exchanged one after the other: workers first and API first, forth and back. Exit code 1 unless every call has one job
and no status but 200, 409 (still running), 429 and 503 with Retry-After.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from jobs.testing import redis_servers
from jobs.testing.waiting import SAFETY_NET_S, wait_until
from tests.chaos.calls import TIMEOUT_S, read_answer
from tests.chaos.history import End, History
from tests.chaos.judge import faults_of

HERE = Path(__file__).parents[2]
CLIENTS = 3
STAY_S = 3.0
ORDERS = (("worker", "api"), ("api", "worker"))


@dataclass
class Deployment:
    """Processes of either checkout on one Redis; `apis` are the addresses that clients call."""

    folder: Path
    model: Path
    redis_url: str
    apis: list[str] = field(default_factory=list)
    running: dict[str, subprocess.Popen] = field(default_factory=dict)
    exchanges: int = 0

    async def start(self, name: str, checkout: Path, kind: str) -> None:
        """Start an API or a worker, and wait until it is ready."""
        port = redis_servers.free_port()
        own = {"PORT": port} if kind == "api" else {"METRICS_PORT": port, "MODEL": self.model, "DEVICE": "cpu"}
        settings = {f"FOURSTEP_{setting}": str(value) for setting, value in own.items()}
        environment = os.environ | settings | {"FOURSTEP_REDIS_URL": self.redis_url, "OMP_NUM_THREADS": "1"}
        with (self.folder / f"{name}.log").open("ab") as log:
            command = [sys.executable, "-m", "fourstep", kind]
            self.running[name] = subprocess.Popen(command, cwd=checkout, env=environment, stderr=log)  # noqa: ASYNC220
        url = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(trust_env=False, timeout=5) as http:
            await wait_until(lambda: self._lives(name) and _serves(http, url, kind), pause_s=0.1)
        if kind == "api":
            self.apis.append(url)

    def _lives(self, name: str) -> bool:
        assert self.running[name].poll() is None, (self.folder / f"{name}.log").read_text()
        return True

    async def stop(self, name: str) -> None:
        """End a process as an orchestrator does: no new calls go there, then SIGTERM."""
        process = self.running.pop(name)
        process.terminate()
        await wait_until(lambda: process.poll() is not None)

    async def exchange(self, kind: str, checkout: Path, earlier: str, later: str) -> None:
        """Put a process of `checkout` in the place of the one called `earlier`."""
        await self.start(later, checkout, kind)
        await asyncio.sleep(STAY_S)
        if kind == "api":
            self.apis.pop(0)
        await self.stop(earlier)
        self.exchanges += 1
        await asyncio.sleep(STAY_S)


async def _serves(http: httpx.AsyncClient, url: str, kind: str) -> bool:
    try:
        answer = await http.get(url + ("/healthz" if kind == "api" else "/metrics"))
        return answer.is_success and (kind == "api" or "fourstep_build_info{" in answer.text)
    except httpx.TransportError:
        return False


async def _call_forever(number: int, deployment: Deployment, history: History, stop: asyncio.Event) -> None:
    async with httpx.AsyncClient(trust_env=False, timeout=TIMEOUT_S) as http:
        call = 0
        while not stop.is_set():
            call += 1
            seeds = [number * 100_000 + 10 * call + image for image in range(4)]
            for _ in range(2):  # the second attempt finds the first one's images, whichever release answers it
                await _answered(http, deployment, history, f"rolling {seeds[0]}", seeds)


async def _answered(
    http: httpx.AsyncClient, deployment: Deployment, history: History, call: str, seeds: list[int]
) -> None:
    body = {"prompt": f"chaos {seeds[0]}", "seeds": seeds, "timeout": TIMEOUT_S}
    while True:
        try:
            url = deployment.apis[-1 if len(history.answers) % 2 else 0]
            sent = await http.post(f"{url}/generate", json=body, headers={"Idempotency-Key": call})
        except httpx.TransportError:
            pass  # the old copy is gone
        else:
            answer = read_answer(call, seeds, sent)
            history.add(answer)
            if answer.status not in ("409", "429", "503"):
                return
        await asyncio.sleep(0.1)


def _model_of(checkout: Path, folder: Path) -> Path:
    """A tiny model in the form of that release."""
    code = (
        "import sys, pathlib; from worker.testing import tiny_pipelines as tiny; tiny.save(pathlib.Path(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", code, str(folder / "tiny-student")], cwd=checkout, check=True)
    return folder / "tiny-student"


async def rolling(previous: Path, folder: Path) -> dict:
    history, stop = History(), asyncio.Event()
    with ExitStack() as stack:
        port = redis_servers.free_port()
        stack.enter_context(redis_servers.server(folder / "redis", "appendonly no", port=port))
        deployment = Deployment(folder, _model_of(previous, folder), f"redis://127.0.0.1:{port}/0")
        try:
            await deployment.start("api 0", previous, "api")
            await deployment.start("worker 0", previous, "worker")
            clients = [
                asyncio.create_task(_call_forever(number, deployment, history, stop))
                for number in range(1, 1 + CLIENTS)
            ]
            for turn, (kinds, checkout) in enumerate(
                [(order, checkout) for order in ORDERS for checkout in (HERE, previous)], start=1
            ):
                for kind in kinds:
                    await deployment.exchange(kind, checkout, f"{kind} {turn - 1}", f"{kind} {turn}")
            stop.set()
            await asyncio.wait_for(asyncio.gather(*clients), SAFETY_NET_S)
        finally:
            for process in deployment.running.values():
                process.kill()
    ends = {answer.job: End(images=answer.images) for answer in history.answers if answer.job and answer.images}
    return {
        "answers": dict(Counter(f"{answer.status} {answer.reason}".strip() for answer in history.answers)),
        "exchanges": deployment.exchanges,
        "calls": history.calls,
        "ends": len(ends),
        "images": history.images,
        "wrong": faults_of(history, ends),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.rolling", description=__doc__.splitlines()[0])
    parser.add_argument("previous", type=Path, help="a checkout of another release")
    parser.add_argument("--out", type=Path, help="where the verdict is written as JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fourstep-rolling-") as folder:
        verdict = asyncio.run(rolling(arguments.previous.resolve(), Path(folder)))
    report = json.dumps(verdict, indent=2) + "\n"
    sys.stdout.write(report)
    if arguments.out:
        arguments.out.write_text(report)
    return 1 if verdict["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
