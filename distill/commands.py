"""`fourstep distill …`: the command line of the distillation package."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Distil a teacher into a few-step student by DP-DMD.", no_args_is_help=True)

RunFolder = Annotated[Path, typer.Option("--run", help="Checkpoints, log and sample grids of this run.")]


@app.command()
def cache(
    teacher: Annotated[Path, typer.Option(help="The teacher's diffusers folder.")],
    prompts: Annotated[Path, typer.Option(help="Text file, one prompt a line.")],
    out: Annotated[Path, typer.Option(help="The safetensors file to write.")],
    max_sequence_length: Annotated[int, typer.Option(help="Length of the T5 block, in tokens.")] = 256,
    negative_prompt: Annotated[str, typer.Option(help="Of classifier-free guidance.")] = "",
) -> None:
    """Encode every prompt once; a configuration may then name the file written as its `prompts`."""
    with _errors_as_lines():
        from distill import config, prompt_embeddings, teacher_pipeline

        texts = [*config.read_prompts(prompts), negative_prompt]
        embeddings = prompt_embeddings.encode(teacher_pipeline.load(teacher), texts, max_sequence_length)
        out.parent.mkdir(parents=True, exist_ok=True)
        embeddings.save(out)
    typer.echo(f"{len(texts) - 1} prompts → {out}")


@app.command()
def train(
    config: Annotated[Path, typer.Option(help="The run's YAML file; its paths are relative to where you stand.")],
    run: RunFolder,
    out: Annotated[Path | None, typer.Option(help="Where to export the student when training is done.")] = None,
) -> None:
    """Train a student. An interrupted run goes on with `fourstep distill resume`."""
    with _errors_as_lines():
        from distill import runs

        runs.start(config, run, out)


@app.command()
def resume(
    run: RunFolder, out: Annotated[Path | None, typer.Option(help="Where to export the student when done.")] = None
) -> None:
    """Go on with a run from its last checkpoint, with the configuration it was started with."""
    with _errors_as_lines():
        from distill import runs

        runs.resume(run, out)


@app.command()
def export(
    run: RunFolder,
    out: Annotated[Path, typer.Option(help="The servable folder to write.")],
    dtype: Annotated[str, typer.Option(help="bfloat16, float16 or float32.")] = "bfloat16",
    lora: Annotated[bool, typer.Option("--lora", help="Only the adapter, as a LoRA file for the teacher.")] = False,
) -> None:
    """Write the student of a run's last checkpoint as a diffusers folder with `sampling.json`."""
    with _errors_as_lines():
        from distill import runs

        runs.export(run, out, dtype, lora)


@contextmanager
def _errors_as_lines() -> Iterator[None]:
    """What the caller can mend becomes one line and exit code 2 instead of a stack trace."""
    try:
        yield
    except ModuleNotFoundError as error:
        typer.echo(f"fourstep distill: {error}; install the extra: pip install 'fourstep[distill]'", err=True)
        raise typer.Exit(2) from error
    except (ValueError, OSError) as error:
        typer.echo(f"fourstep distill: {error}", err=True)
        raise typer.Exit(2) from error
