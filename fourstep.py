"""The `fourstep` command. Parts are imported when a command needs them: `--help` loads no torch."""

from typing import Annotated

import typer

from distill.commands import app as distill
from distill.commands import evaluate
from jobs.commands.dead_letters import app as dead_letters
from jobs.commands.webhooks import app as webhooks
from jobs.version import fourstep_version
from service.commands import api, generate, up
from worker.commands import app as models
from worker.commands import import_dpdmd, import_model, worker

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Few-step image generation as a service.")


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"fourstep {fourstep_version()}")
        raise typer.Exit


@app.callback()
def _fourstep(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Few-step image generation as a service."""


for command in (up, api, worker, generate, import_dpdmd, evaluate):
    app.command()(command)
app.command("import")(import_model)
app.add_typer(distill, name="distill")
app.add_typer(dead_letters, name="dead-letters")
app.add_typer(webhooks, name="webhooks")
app.add_typer(models, name="models")

if __name__ == "__main__":
    app()
