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
from worker.commands import app as models

AnySettings = TypeVar("AnySettings", bound=Settings)

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Few-step image generation as a service.")


app.add_typer(distill, name="distill")
app.add_typer(dead_letters, name="dead-letters")
app.add_typer(models, name="models")


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
    from service.up.supervisor import CannotServeError
    from service.up.supervisor import up as serve_all

    api, worker = _settings(ApiSettings), _settings(WorkerSettings)
    configure_logging(api.log_level)
    try:
        asyncio.run(serve_all(api, worker, models or [worker.model]))
    except (CannotServeError, RuntimeError) as error:
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
        _leave(str(error))


@app.command()
def import_dpdmd(
    file: Annotated[Path, typer.Argument(metavar="FILE.pt", help="the authors' checkpoint, a transformer's weights")],
    base: Annotated[str, typer.Option(metavar="ID_OR_DIR", help="the Stable Diffusion 3 pipeline it was made from")],
    out: Annotated[Path, typer.Option(help="the servable folder to write")],
) -> None:
    """Make a servable folder of the authors' released DP-DMD checkpoint, sampled as they sample it."""
    try:
        from distill.import_dpdmd import import_checkpoint

        contract = import_checkpoint(file, base, out)
    except ModuleNotFoundError as error:
        _leave(f"{error}; install the extra: pip install '.[distill]' in a checkout")
    except (ValueError, OSError) as error:
        _leave(str(error))
    levels = ", ".join(f"{sigma:.4g}" for sigma in contract.sigmas or ())
    typer.echo(f"{file} on {base} → {out}, sampled at noise levels {levels}")


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(help="the folder to evaluate, sampled as it is served")],
    teacher: Annotated[Path, typer.Option(help="the folder it is compared with")],
    out: Annotated[Path, typer.Option("-o", "--out", help="folder for report, grids and kept pictures")],
    prompts: Annotated[Path | None, typer.Option(help="one prompt a line; by default those of the emoji world")] = None,
    seeds: Annotated[int, typer.Option(min=4, help="pictures of each prompt")] = 9,
    features: Annotated[list[str], typer.Option(help="dino=FOLDER, clip=FOLDER or emoji=FOLDER; may be repeated")] = [],  # noqa: B006
    scores: Annotated[
        list[str], typer.Option(help="clipscore=FOLDER, pickscore=FOLDER or imagereward=FOLDER; may be repeated")
    ] = [],  # noqa: B006
    geneval: Annotated[Path | None, typer.Option(help="GenEval's evaluation_metadata.jsonl, for its prompts")] = None,
    detector: Annotated[Path | None, typer.Option(help="GenEval's Mask2Former folder")] = None,
    colors: Annotated[Path | None, typer.Option(help="GenEval's CLIP folder")] = None,
    steps: Annotated[int, typer.Option(min=1, help="of a folder without sampling.json")] = 30,
    guidance_scale: Annotated[float, typer.Option(min=1, help="of a folder without sampling.json")] = 3.5,
) -> None:
    """Compare a student with its teacher: diversity, coverage, quality, prompt match and pairing."""
    try:
        from rich import print_json

        from distill.evaluation import report
        from distill.evaluation.pictures import Sampling

        named = _folders("--features", features)
        if prompts is None and geneval is None:
            named = {"emoji": Path("models/emoji-encoder")} | named
        benchmark = None
        if geneval:
            if not (detector and colors):
                raise ValueError("--geneval: needs --detector and --colors, the folders of its two networks")
            benchmark = report.GenEval(geneval, detector, colors)
        judged = _folders("--scores", scores)
        protocol = report.Protocol(seeds, named, judged, Sampling(steps, guidance_scale), prompts, benchmark)
        print_json(data=report.evaluate(model, teacher, protocol, out))
    except ModuleNotFoundError as error:
        _leave(f"{error}; install the extra: pip install '.[distill]' in a checkout")
    except (ValueError, OSError) as error:
        _leave(str(error))


def _folders(option: str, given: list[str]) -> dict[str, Path]:
    """What NAME=FOLDER options say."""
    pairs = [one.partition("=") for one in given]
    for name, sign, folder in pairs:
        if not (name and sign and folder):
            raise ValueError(f"{option}: {name or sign or folder} is not of the form NAME=FOLDER")
    return {name: Path(folder) for name, _, folder in pairs}


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
