"""The commands `fourstep worker`, `fourstep models` and `fourstep import`."""

import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from jobs.cli import errors_as_lines

app = typer.Typer(help="Check model folders, and list the presets of import.", no_args_is_help=True)


@app.command()
def check(
    model: Annotated[str, typer.Argument(metavar="DIR", help="A model folder, a LoRA folder or a hub id.")],
    gpu_memory: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Also say what fits a GPU of this much memory, such as 24GB. Needs no GPU."),
    ] = None,
) -> None:
    """Load a model on the CPU as a worker would, and say what it is served on or which field is wrong.

    The exit code is 0 for a model that can be served, 1 for one that cannot or does not fit.

    Example: `fourstep models check models/sdxl-turbo --gpu-memory 24GB`
    """
    with errors_as_lines(extra="worker", code=2, command="fourstep models"):
        from worker import startup
        from worker.errors import FolderRefusedError
        from worker.memory import report
        from worker.model_folder import loading
    startup.quiet_libraries()
    try:
        memory = None if gpu_memory is None else report.read_bytes(gpu_memory)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--gpu-memory") from error
    try:
        served = loading.load(model, device="cpu") if memory is None else report.load(model)
    except FolderRefusedError as error:
        typer.echo(f"{model} cannot be served: {error}", err=True)
        raise typer.Exit(1) from error
    contract = served.contract
    sizes = ", ".join(f"{width}×{height}" for height, width in contract.sizes)
    grid = contract.sigmas or contract.timesteps or ()
    typer.echo(f"{model} can be served as {served.name}")
    method = "" if contract.method == "none" else f"{contract.method}, "
    typer.echo(f"  {contract.family}, {method}predicts {contract.prediction}; hash {served.sha256[:12]}")
    told = "" if contract.told_guidance is None else f", told guidance {contract.told_guidance:g}"
    evaluations = f"{contract.evaluations} evaluations a picture{told}"
    typer.echo(f"  {contract.steps} steps ({contract.sampler}), {evaluations}; {sizes}")
    typer.echo(f"  grid: {', '.join(f'{level:g}' for level in grid)}")
    if memory is not None:
        lines, fits = report.lines(served, memory)
        typer.echo("\n".join(lines))
        raise typer.Exit(0 if fits else 1)


@app.command("list")
def list_presets() -> None:
    """Print the published models that `fourstep import` knows, and where each is published.

    Example: `fourstep models list`
    """
    with errors_as_lines(extra="worker", code=2, command="fourstep models"):
        from worker.importing.presets import PRESETS
    for preset in PRESETS.values():
        typer.echo(f"{preset.name:<32}{preset.family:<13}{preset.steps:>2} steps  {preset.source}")


def import_model(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A file, a folder, a hub id, or owner/name/file on the hub.")
    ],
    preset: Annotated[
        str, typer.Option(metavar="NAME", help="What the source is: a name that `fourstep models list` prints.")
    ],
    out: Annotated[Path, typer.Option(help="The servable folder to write.")],
    base: Annotated[
        str | None,
        typer.Option(metavar="ID_OR_DIR", help="The pipeline with the rest of the model. Default: the published one."),
    ] = None,
    lora_scale: Annotated[float | None, typer.Option(help="Scale of a LoRA file. Default: the published one.")] = None,
    size: Annotated[
        list[str],
        typer.Option(metavar="WIDTHxHEIGHT", help="Size to serve. May be repeated; the first is the default of calls."),
    ] = [],  # noqa: B006
) -> None:
    """Make a servable folder of a published few-step model.

    Example: `fourstep import stabilityai/sdxl-turbo --preset sdxl-turbo-4step --out models/sdxl-turbo`
    """
    with errors_as_lines(ValueError, OSError, extra="worker"):
        from worker import startup
        from worker.errors import FolderRefusedError
        from worker.importing import folder

        startup.quiet_libraries()
        try:
            imported = folder.import_model(source, preset, out, base, lora_scale, [_size(each) for each in size])
        except FolderRefusedError as error:
            raise ValueError(str(error)) from error
    contract = imported.contract
    sizes = ", ".join(f"{width}×{height}" for height, width in contract.sizes)
    grid = ", ".join(f"{level:.4g}" for level in contract.sigmas or contract.timesteps or ())
    typer.echo(f"{source} as {preset} → {out}")
    typer.echo(f"  the rest is {contract.base}; {contract.steps} steps ({contract.sampler}) along {grid}; {sizes}")
    if imported.made_for:
        typer.echo(f"  {preset} was made for {imported.made_for}: {source} may need other steps or guidance")
    typer.echo(f"  {imported.licence}")


def import_dpdmd(
    file: Annotated[str, typer.Argument(metavar="FILE.pt", help="The authors' checkpoint, a transformer's weights.")],
    base: Annotated[str, typer.Option(metavar="ID_OR_DIR", help="The Stable Diffusion 3 pipeline it was made from.")],
    out: Annotated[Path, typer.Option(help="The servable folder to write.")],
) -> None:
    """Make a servable folder of the authors' released DP-DMD checkpoint, sampled as they sample it.

    Example: `fourstep import-dpdmd dpdmd.pt --base stabilityai/stable-diffusion-3.5-medium --out models/dpdmd`
    """
    import_model(file, "dpdmd-sd35m-4step", out, base)


def _size(text: str) -> tuple[int, int]:
    """WIDTHxHEIGHT → (height, width). Raises ValueError."""
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if match is None:
        raise ValueError(f"--size: {text} is not of the form WIDTHxHEIGHT")
    return int(match[2]), int(match[1])


def worker() -> None:
    """Run one worker alone, on the Redis of FOURSTEP_REDIS_URL.

    Example: `FOURSTEP_REDIS_URL=redis://localhost FOURSTEP_MODEL=models/sdxl-turbo fourstep worker`
    """
    from worker.main import main

    sys.exit(main())
