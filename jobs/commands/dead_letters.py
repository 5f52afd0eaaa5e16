"""`fourstep dead-letters`: list, replay and drop tasks that were given up because no worker survived them."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import Annotated

import typer
from redis.asyncio import Redis
from redis.exceptions import RedisError

from jobs.cli import fail, read_settings
from jobs.queue.connection import open_redis
from jobs.queue.dead_letters import DeadLetter, DeadLetters
from jobs.queue.job_client import JobClient
from jobs.queue.model_registry import known_models
from jobs.settings import ApiSettings

app = typer.Typer(
    no_args_is_help=True, help="List, replay or drop tasks that were given up because no worker survived them."
)

Ids = Annotated[list[str] | None, typer.Argument(help="Ids as listed. All of the model's when absent.")]
Model = Annotated[str | None, typer.Option(help="The model's name. Needed only when there are several.")]


@app.command("list")
def list_letters(model: Model = None) -> None:
    """Show every dead letter: id, time, job, image, seed, size, the reason, and the prompt.

    Example: `fourstep dead-letters list`
    """
    run_on_model(_list, model)


@app.command()
def replay(ids: Ids = None, model: Model = None) -> None:
    """Queue dead letters again, each as a new job, and print the jobs' ids.

    Example: `fourstep dead-letters replay`
    """
    run_on_model(partial(_replay, ids), model)


@app.command()
def drop(ids: Annotated[list[str], typer.Argument(help="Ids as listed.")], model: Model = None) -> None:
    """Forget dead letters.

    Example: `fourstep dead-letters drop 1764513290000-0`
    """
    run_on_model(partial(_drop, ids), model)


async def _list(redis: Redis, model: str) -> None:
    letters = await DeadLetters(redis, model).read()
    if not letters:
        typer.echo(f"no dead letters of {model}", err=True)
    for letter in letters:
        when = datetime.fromtimestamp(letter.buried, UTC).isoformat(timespec="seconds")
        task = letter.task
        if task is None:
            typer.echo(f"{letter.id}  {when}  unreadable  {letter.failure.detail}")
            continue
        place = f"{task.job_id}/{task.index}  seed {task.seed}  {task.width}x{task.height}"
        typer.echo(f"{letter.id}  {when}  {place}  {letter.failure.detail}  {task.prompt!r}")


async def _replay(ids: list[str] | None, redis: Redis, model: str) -> None:
    settings = read_settings(ApiSettings)
    letters, queue = DeadLetters(redis, model), JobClient(redis, model)
    for letter in _chosen(await letters.read(), ids):
        task = letter.as_new_job(time.time())
        if task is None:
            typer.echo(f"{letter.id}  unreadable: not replayed", err=True)
            continue
        admission = await queue.admit([task], settings.max_queued_images, settings.result_ttl_s)
        if not admission.ok:
            fail(f"the queue is full: {letter.id} and what follows stay dead letters")
        await letters.drop([letter.id])
        typer.echo(f"{letter.id}  job {task.job_id}")


async def _drop(ids: list[str], redis: Redis, model: str) -> None:
    letters = DeadLetters(redis, model)
    chosen = _chosen(await letters.read(), ids)
    typer.echo(f"{await letters.drop([letter.id for letter in chosen])} dropped")


def _chosen(letters: list[DeadLetter], ids: list[str] | None) -> list[DeadLetter]:
    if ids is None:
        return letters
    if unknown := set(ids) - {letter.id for letter in letters}:
        fail(f"no such dead letter: {', '.join(sorted(unknown))}")
    return [letter for letter in letters if letter.id in ids]


async def _only_model(redis: Redis, model: str | None) -> str:
    names = await known_models(redis)
    if model is None and len(names) == 1:
        return names[0]
    if model not in names:
        fail(f"--model must be one of: {', '.join(names) or 'none has been announced on this Redis'}")
    assert model is not None
    return model


def run_on_model(work: Callable[[Redis, str], Awaitable[None]], model: str | None) -> None:
    """Await `work` with a client of the Redis in the settings, and the name of the model."""
    redis_url = read_settings(ApiSettings).redis_url
    if redis_url is None:
        fail("FOURSTEP_REDIS_URL must name the Redis to look at")

    async def connected() -> None:
        async with open_redis(redis_url) as redis:
            await work(redis, await _only_model(redis, model))

    try:
        asyncio.run(connected())
    except RedisError as error:
        fail(f"Redis does not answer: {error}")
