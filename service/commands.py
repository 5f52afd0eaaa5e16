"""`fourstep up`, `api` and `generate`: run servers, and request images from one."""

import asyncio
import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from jobs.cli import fail, read_settings
from jobs.settings import PREFIX, ApiSettings, WorkerSettings


def up(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL",
            show_default="FOURSTEP_MODEL",
            help="Model folders or hub ids, each served by its own worker. Calls use the first by default.",
        ),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.", show_default="FOURSTEP_HOST")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.", show_default="FOURSTEP_PORT")] = None,
) -> None:
    """Serve models: an embedded Redis (unless FOURSTEP_REDIS_URL is set), workers and the API, as one process tree.

    Example: `fourstep up models/sdxl-turbo --port 9000`
    """
    from jobs.structured_logging import configure_logging
    from service.up.supervisor import CannotServeError
    from service.up.supervisor import up as serve_all

    for name, value in (("HOST", host), ("PORT", port)):
        if value is not None:
            os.environ[f"{PREFIX}{name}"] = str(value)  # the processes of the tree read it there too
    api, worker = read_settings(ApiSettings), read_settings(WorkerSettings)
    configure_logging(api.log_level)
    try:
        asyncio.run(serve_all(api, worker, models or [worker.model]))
    except (CannotServeError, RuntimeError) as error:
        fail(str(error))


def api() -> None:
    """Run the API alone, on the Redis of FOURSTEP_REDIS_URL.

    Example: `FOURSTEP_REDIS_URL=redis://localhost fourstep api`
    """
    from service.server import serve

    settings = read_settings(ApiSettings)
    try:
        serve(settings)
    except (ValueError, OSError) as error:
        fail(str(error))


def generate(
    prompt: Annotated[str, typer.Argument(help="Text to draw.")],
    num_images: Annotated[int, typer.Option("-n", "--num-images", help="Number of images.")] = 1,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the first image; image i uses seed + i. Drawn at random when absent.")
    ] = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to write to.")] = Path("out"),
    image_format: Annotated[
        Literal["png", "jpeg", "webp"], typer.Option("--format", help="Format of the files.")
    ] = "png",
    diverse: Annotated[
        bool, typer.Option("--diverse", help="Choose images that differ much, among more seeds.")
    ] = False,
    candidates: Annotated[
        int | None, typer.Option(help="Seeds to choose a diverse set from. Default: 4 per image, at most 64.")
    ] = None,
    image: Annotated[
        Path | None, typer.Option(dir_okay=False, exists=True, help="Picture to begin from: PNG, JPEG or WebP.")
    ] = None,
    strength: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="How much of --image changes. Default: 0.75, and 1 with --mask."),
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False,
            exists=True,
            help="Picture of the size of --image. Its white or transparent part is painted anew.",
        ),
    ] = None,
    negative_prompt: Annotated[
        str | None, typer.Option(help="What the pictures of a guided model should not show.")
    ] = None,
    guidance_scale: Annotated[
        float | None, typer.Option(help="Guidance of a guided model, 1 to 30. Default: the model's own.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Name or alias of a model. Default: the server's default model.")
    ] = None,
    width: Annotated[int | None, typer.Option(help="Pixels. Default: the model's native width.")] = None,
    height: Annotated[int | None, typer.Option(help="Pixels. Default: the model's native height.")] = None,
    mode: Annotated[
        Literal["fast", "strict"], typer.Option(help="With strict, an image has the same pixels in any batch.")
    ] = "fast",
    timeout: Annotated[
        float | None, typer.Option(help="Seconds to wait. Default: the server's FOURSTEP_TIMEOUT_S.")
    ] = None,
    server: Annotated[
        str | None, typer.Option(help="Address of the server.", show_default="http://127.0.0.1:FOURSTEP_PORT, or 8000")
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(
            help="API key, if the server asks for one.", show_default="without --server: the first of FOURSTEP_API_KEYS"
        ),
    ] = None,
) -> None:
    """Ask a running server for images and write them to files named by their seeds.

    Example: `fourstep generate "a smiling cat face" -n 4 --seed 7 -o out/`
    """
    from rich.console import Console

    from service.client import GenerationFailedError, as_base64, generate_files

    request: dict[str, Any] = {"prompt": prompt, "num_images": num_images, "format": image_format}
    optional = {"seed": seed, "model": model, "width": width, "height": height, "timeout": timeout}
    optional |= {"strength": strength, "negative_prompt": negative_prompt, "guidance_scale": guidance_scale}
    optional |= {"image": as_base64(image), "mask": as_base64(mask)}
    request |= {"mode": mode} | {name: value for name, value in optional.items() if value is not None}
    if diverse or candidates is not None:
        request["select"] = {"diverse": True} | ({} if candidates is None else {"candidates": candidates})
    if server is None:
        settings = read_settings(ApiSettings)
        server = f"http://127.0.0.1:{settings.port}"
        if api_key is None and settings.api_keys:
            api_key = settings.api_keys[0].get_secret_value()
    try:
        generate_files(server, request, out, Console(), api_key)
    except (GenerationFailedError, OSError) as error:
        fail(str(error))
