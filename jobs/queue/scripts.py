"""The Lua scripts of ``lua/``, and the conversions that their arguments share: the scripts count in milliseconds."""

from functools import cache
from pathlib import Path

from redis.asyncio import Redis
from redis.commands.core import AsyncScript

from jobs.clock import steady_time
from jobs.models import ImageTask

LUA_DIR = Path(__file__).parent / "lua"

ALLOW_OOM = "#!lua flags=allow-oom\n"
"""First line of a script that Redis also runs when it has no memory left."""


def register_script(redis: Redis, *parts: str, allow_oom: bool = False) -> AsyncScript:
    """The script ``lua/<last part>.lua``, after the preludes that the parts before it name."""
    return redis.register_script((ALLOW_OOM if allow_oom else "") + "".join(_source(part) for part in parts))


def milliseconds(seconds: float) -> int:
    """Whole milliseconds, at least 1: Redis refuses a time to live of 0."""
    return max(1, round(seconds * 1000))


def longest_life_ms(task: ImageTask, ttl_s: float) -> int:
    """Milliseconds that a job may live: until its deadline, if it has one, and `ttl_s` seconds from there."""
    return milliseconds(ttl_s + max(0.0, (task.deadline or 0.0) - steady_time()))


@cache
def _source(part: str) -> str:
    return (LUA_DIR / f"{part}.lua").read_text()
