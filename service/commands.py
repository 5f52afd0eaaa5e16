"""`fourstep up`, `api` and `generate`: run servers, and request images from one."""

import asyncio
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from jobs.cli import fail, read_settings
from jobs.settings import ApiSettings, WorkerSettings


def up(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL",
            show_default="FOURSTEP_MODEL",
            help="folders or hub ids, each served by its own worker; the first is the default of calls",
        ),
    ] = None,
) -> None:
    """Serve: an embedded Redis (unless FOURSTEP_REDIS_URL is set), a worker and the API, as one process tree."""
    from jobs.structured_logging import configure_logging
    from service.up.supervisor import CannotServeError
    from service.up.supervisor import up as serve_all

    api, worker = read_settings(ApiSettings), read_settings(WorkerSettings)
    configure_logging(api.log_level)
    try:
        asyncio.run(serve_all(api, worker, models or [worker.model]))
    except (CannotServeError, RuntimeError) as error:
        fail(str(error))


def api() -> None:
    """Run the API alone, on the Redis of FOURSTEP_REDIS_URL."""
    from service.server import serve

    settings = read_settings(ApiSettings)
    try:
        serve(settings)
    except ValueError as error:
        fail(str(error))


def generate(
    prompt: str,
    num_images: Annotated[int, typer.Option("-n", "--num-images", help="number of images")] = 1,
    seed: Annotated[int | None, typer.Option(help="image i uses seed + i; drawn at random when absent")] = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="folder to write to")] = Path("out"),
    image_format: Annotated[Literal["png", "jpeg", "webp"], typer.Option("--format", help="kind of files")] = "png",
    diverse: Annotated[bool, typer.Option("--diverse", help="choose a set of images that are far apart")] = False,
    candidates: Annotated[
        int | None, typer.Option(help="seeds to choose a diverse set from; default: 4 per image, at most 64")
    ] = None,
    server: Annotated[str, typer.Option(help="address of the server")] = "http://127.0.0.1:8000",
    api_key: Annotated[str | None, typer.Option(help="key, if the server asks for one")] = None,
) -> None:
    """Ask a running server for images and write them to files named by their seeds."""
    from rich.console import Console

    from service.client import GenerationFailedError, generate_files

    request: dict[str, Any] = {"prompt": prompt, "num_images": num_images, "format": image_format}
    if seed is not None:
        request["seed"] = seed
    if diverse or candidates is not None:
        request["select"] = {"diverse": True} | ({} if candidates is None else {"candidates": candidates})
    try:
        generate_files(server, request, out, Console(), api_key)
    except (GenerationFailedError, OSError) as error:
        fail(str(error))
