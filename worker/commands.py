"""The commands `fourstep worker` and `fourstep models`."""

import sys
from typing import Annotated

import typer

from jobs.cli import errors_as_lines

app = typer.Typer(help="Model folders.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep `models` a group: typer would make a single command the group itself."""


@app.command()
def check(
    model: Annotated[str, typer.Argument(metavar="DIR", help="A model folder, a LoRA folder or a hub id.")],
) -> None:
    """Load a model on the CPU as a worker would, and say what it is served on or which field is wrong.

    The exit code is 0 for a model that can be served, 1 for one that cannot.
    """
    with errors_as_lines(extra="worker", code=2, command="fourstep models"):
        from worker import startup
        from worker.errors import FolderRefusedError
        from worker.model_folder import loading
    startup.quiet_libraries()
    try:
        served = loading.load(model, device="cpu")
    except FolderRefusedError as error:
        typer.echo(f"{model} cannot be served: {error}", err=True)
        raise typer.Exit(1) from error
    contract = served.contract
    sizes = ", ".join(f"{width}×{height}" for height, width in contract.sizes)
    grid = contract.sigmas or contract.timesteps or ()
    typer.echo(f"{model} can be served as {served.name}")
    typer.echo(f"  {contract.family}, {contract.method}, predicts {contract.prediction}; hash {served.sha256[:12]}")
    typer.echo(f"  {contract.steps} steps ({contract.sampler}), {contract.evaluations} evaluations a picture; {sizes}")
    typer.echo(f"  grid: {', '.join(f'{level:g}' for level in grid)}")


def worker() -> None:
    """Run one worker alone, on the Redis of FOURSTEP_REDIS_URL."""
    from worker.main import main

    sys.exit(main())
