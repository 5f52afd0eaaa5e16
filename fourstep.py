"""The `fourstep` command. Parts are imported when a command needs them: `--help` loads no torch."""

import asyncio
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, TypeVar

import typer
from pydantic import ValidationError

from distill.commands import app as distill
from jobs.commands import app as dead_letters
from jobs.settings import ApiSettings, Settings, WorkerSettings, explain

AnySettings = TypeVar("AnySettings", bound=Settings)

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Few-step image generation as a service.")


app.add_typer(distill, name="distill")
app.add_typer(dead_letters, name="dead-letters")


@app.command()
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
    from service.up import CannotServe
    from service.up import up as serve_all

    api, worker = _settings(ApiSettings), _settings(WorkerSettings)
    configure_logging(api.log_level)
    try:
        asyncio.run(serve_all(api, worker, models or [worker.model]))
    except (CannotServe, RuntimeError) as error:
        _leave(str(error))


@app.command()
def api() -> None:
    """Run the API alone, on the Redis of FOURSTEP_REDIS_URL."""
    from service.server import serve

    settings = _settings(ApiSettings)
    try:
        serve(settings)
    except ValueError as error:
        _leave(str(error))


@app.command()
def worker() -> None:
    """Run one worker alone, on the Redis of FOURSTEP_REDIS_URL."""
    from worker.main import main

    sys.exit(main())


@app.command()
def generate(
    prompt: str,
    num_images: Annotated[int, typer.Option("-n", "--num-images", help="number of images")] = 1,
    seed: Annotated[int | None, typer.Option(help="image i uses seed + i; drawn at random when absent")] = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="folder to write to")] = Path("out"),
    image_format: Annotated[Literal["png", "jpeg", "webp"], typer.Option("--format", help="kind of files")] = "png",
    server: Annotated[str, typer.Option(help="address of the server")] = "http://127.0.0.1:8000",
    api_key: Annotated[str | None, typer.Option(help="key, if the server asks for one")] = None,
) -> None:
    """Ask a running server for images and write them to files named by their seeds."""
    from rich.console import Console

    from service.client import GenerationFailed, generate_files

    request: dict[str, Any] = {"prompt": prompt, "num_images": num_images, "format": image_format}
    if seed is not None:
        request["seed"] = seed
    try:
        generate_files(server, request, out, Console(), api_key)
    except (GenerationFailed, OSError) as error:
        _leave(str(error))


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(help="the folder to evaluate, sampled as it is served")],
    teacher: Annotated[Path, typer.Option(help="the folder it is compared with")],
    out: Annotated[Path, typer.Option("-o", "--out", help="folder for report, grids and kept pictures")],
    encoder: Annotated[Path, typer.Option(help="the frozen emoji encoder")] = Path("models/emoji-encoder"),
) -> None:
    """Compare a student with its teacher: diversity, coverage, prompt match, quality and pairing."""
    try:
        from rich import print_json

        from distill.emoji.encoder import EmojiEncoder
        from distill.evaluation.emoji import evaluate as evaluate_emoji

        print_json(data=evaluate_emoji(model, teacher, EmojiEncoder.load(encoder), out))
    except ModuleNotFoundError as error:
        _leave(f"{error}; install the extra: pip install 'fourstep[distill]'")
    except (ValueError, OSError) as error:
        _leave(str(error))


def _settings(kind: type[AnySettings]) -> AnySettings:
    try:
        return kind()
    except ValidationError as error:
        _leave(explain(error))


def _leave(reason: str) -> NoReturn:
    typer.echo(f"fourstep: {reason}", err=True)
    raise typer.Exit(1)


if __name__ == "__main__":
    app()
