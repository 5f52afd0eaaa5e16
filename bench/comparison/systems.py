"""The compared systems, with their commands, requests and tuning."""

import base64
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from operator import itemgetter
from typing import Any, Literal

from bench.comparison.trace import Call
from bench.peers.latency_engine import FIXED_S, PER_ROW_S
from bench.service import http_load
from jobs.testing import redis_servers

Engine = Literal["sampler", "diffusers", "latency-model"]
Commands = list[list[str]]


@dataclass(frozen=True)
class Ports:
    """Ports of 127.0.0.1, free when they were drawn."""

    http: int = field(default_factory=redis_servers.free_port)
    metrics: int = field(default_factory=redis_servers.free_port)
    redis: int = field(default_factory=redis_servers.free_port)


PYTHON = [sys.executable, "-m"]
MODEL_CORE = 1
FRONT_CORE = 0
"""The thread that draws has a core of its own; everything else of a system and the client share the other."""


@dataclass(frozen=True)
class Tuning:
    """A point of the grid: calls in a batch, and seconds that the first of them waits for company."""

    batch_size: int = 8
    wait_s: float = 0.01


BATCH_SIZES, WAITS_S = (4, 8, 16, 32), (0.0, 0.01)


@dataclass(frozen=True)
class System:
    """`commands` on a port, `requests` for a call (all sent at once), and the images `listed` in one answer."""

    name: str
    package: str
    commands: Callable[[Ports, Engine], Commands]
    requests: Callable[[Call, str], list[bytes]]
    listed: Callable[[Any], list[dict[str, Any]]] = lambda answer: [answer]
    batches: bool = True
    waits: bool = True

    @property
    def installed(self) -> bool:
        return find_spec(self.package) is not None

    @property
    def ours(self) -> bool:
        return self.package == "fourstep"

    def pictures(self, answer: Any) -> list[tuple[int, bytes]]:
        """Seed and PNG of each image in an answer."""
        return [(image["seed"], base64.b64decode(image["b64"])) for image in self.listed(answer)]

    def grid(self) -> list[Tuning]:
        """The points of its tuning: none without batching, only batch sizes where there is no wait to set."""
        waits = WAITS_S if self.waits else WAITS_S[:1]
        return [Tuning(size, wait) for size in BATCH_SIZES for wait in waits] if self.batches else []


def environment(ports: Ports, engine: Engine, tuning: Tuning, more: dict[str, str]) -> dict[str, str]:
    """Environment variables of a system's processes, `more` last."""
    quiet = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "BENTOML_DO_NOT_TRACK": "1"}
    ray = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    peer = {
        "BENCH_ENGINE": engine,
        "BENCH_PORT": str(ports.http),
        "BENCH_BATCH_SIZE": str(tuning.batch_size),
        "BENCH_WAIT_S": str(tuning.wait_s),
        "BENCH_MODEL_CORE": str(MODEL_CORE),
    }
    ours = {
        "FOURSTEP_PORT": str(ports.http),
        "FOURSTEP_METRICS_PORT": str(ports.metrics),
        "FOURSTEP_LOG_LEVEL": "warning",
    }
    if engine == "latency-model":
        ours["FOURSTEP_REDIS_URL"] = f"redis://127.0.0.1:{ports.redis}/0"
    return {**os.environ, **quiet, **ray, **peer, **ours, **more}


def _fourstep(ports: Ports, engine: Engine) -> Commands:
    if engine == "sampler":
        return [[*PYTHON, "fourstep", "up"]]
    times = ["--fixed", str(FIXED_S), "--per-row", str(PER_ROW_S)]
    redis = [redis_servers.BUNDLED, "--port", str(ports.redis), "--bind", "127.0.0.1", "--save", ""]
    return [redis, [*PYTHON, "fourstep", "api"], [*PYTHON, "bench.engine.latency_model", *times]]


def _uvicorn(app: str) -> Callable[[Ports, Engine], Commands]:
    serve = [*PYTHON, "uvicorn", f"bench.peers.{app}:app", "--no-access-log", "--port"]
    return lambda ports, engine: [[*serve, str(ports.http)]]


def _module(name: str) -> Callable[[Ports, Engine], Commands]:
    return lambda ports, engine: [[*PYTHON, f"bench.peers.{name}"]]


def _bentoml(ports: Ports, engine: Engine) -> Commands:
    serve = ["bentoml", "serve", "bench.peers.bento_ml:Drawing", "--host", "127.0.0.1", "--port", str(ports.http)]
    return [[*PYTHON, *serve]]


def _post(body: dict[str, Any]) -> bytes:
    return http_load.post("/generate", json.dumps(body).encode())


def _fourstep_requests(call: Call, mode: str) -> list[bytes]:
    timeout = {"timeout": min(call.deadline, 600.0)}
    return [_post({"prompt": call.prompt, "seed": call.seed, "num_images": call.images, "mode": mode} | timeout)]


def _single_requests(call: Call, mode: str) -> list[bytes]:
    return [_post({"prompt": call.prompt, "seed": call.seed + index}) for index in range(call.images)]


def _bentoml_requests(call: Call, mode: str) -> list[bytes]:
    return [_post({"calls": [{"prompt": call.prompt, "seed": call.seed + i} for i in range(call.images)]})]


SYSTEMS = {
    system.name: system
    for system in [
        System("fourstep", "fourstep", _fourstep, _fourstep_requests, itemgetter("images"), batches=False),
        System("FastAPI + lock", "fastapi", _uvicorn("fastapi_lock"), _single_requests, batches=False),
        System("FastAPI + batching", "fastapi", _uvicorn("fastapi_batch"), _single_requests),
        System("LitServe", "litserve", _module("lit_serve"), _single_requests),
        System("BentoML", "bentoml", _bentoml, _bentoml_requests, list, waits=False),
        System("Ray Serve", "ray", _module("ray_serve"), _single_requests),
    ]
}
