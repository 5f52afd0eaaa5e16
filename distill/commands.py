"""`fourstep distill …`: the command line of the distillation package."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

from jobs.cli import errors_as_lines

app = typer.Typer(help="Distil a teacher into a few-step student by DP-DMD.", no_args_is_help=True)

RunFolder = Annotated[Path, typer.Option("--run", help="Checkpoints, log and sample grids of this run.")]


@contextmanager
def _one_line(code: int = 2, command: str = "fourstep distill") -> Iterator[None]:
    """End `command` in one line for errors that the caller can correct, and silence what the libraries print."""
    with errors_as_lines(ValueError, OSError, extra="distill", code=code, command=command):
        from worker.startup import quiet_libraries

        quiet_libraries()
        yield


@app.command()
def cache(
    teacher: Annotated[Path, typer.Option(help="The teacher's diffusers folder.")],
    prompts: Annotated[Path, typer.Option(help="Text file, one prompt a line.")],
    out: Annotated[Path, typer.Option(help="The folder to write, or to add to.")],
    max_sequence_length: Annotated[int, typer.Option(help="Length of the T5 block, in tokens.")] = 256,
    negative_prompt: Annotated[str, typer.Option(help="Negative prompt of classifier-free guidance.")] = "",
) -> None:
    """Encode every prompt once, for all runs whose configuration names the folder as `embeddings`.

    Example: `fourstep distill cache --teacher models/emoji-teacher --prompts prompts.txt --out build/embeddings`
    """
    with _one_line():
        from distill import config, embedding_cache

        texts = [*config.read_prompts(prompts), negative_prompt]
        embedding_cache.fill(out, teacher, texts, max_sequence_length)
    typer.echo(f"{len(texts) - 1} prompts → {out}")


@app.command()
def train(
    config: Annotated[Path, typer.Option(help="The run's YAML file; its paths are relative to the working directory.")],
    run: RunFolder,
    out: Annotated[Path | None, typer.Option(help="Folder to export the student to after training.")] = None,
) -> None:
    """Train a student. Resume an interrupted run with `fourstep distill resume`.

    Example: `fourstep distill train --config distill/configs/emoji.yaml --run build/my-student --out my-student`
    """
    with _one_line():
        from distill import runs

        runs.start(config, run, out)


@app.command()
def resume(
    run: RunFolder,
    out: Annotated[Path | None, typer.Option(help="Folder to export the student to after training.")] = None,
) -> None:
    """Resume a run from its last checkpoint, with the configuration it was started with.

    Example: `fourstep distill resume --run build/my-student --out my-student`
    """
    with _one_line():
        from distill import runs

        runs.resume(run, out)


@app.command()
def export(
    run: RunFolder,
    out: Annotated[Path, typer.Option(help="The servable folder to write.")],
    dtype: Annotated[
        str, typer.Option(help="Number format of the weights: bfloat16, float16 or float32.")
    ] = "bfloat16",
    lora: Annotated[
        bool, typer.Option("--lora", help="Write only the adapter, as a LoRA file for the teacher.")
    ] = False,
    checkpoint: Annotated[
        str, typer.Option(help="The checkpoint to export: last, best (nearest to the teacher) or a step's number.")
    ] = "last",
) -> None:
    """Write the student of a run's last or best checkpoint as a diffusers folder with `sampling.json`.

    Example: `fourstep distill export --run build/my-student --out my-student --checkpoint best`
    """
    with _one_line():
        from distill import runs

        runs.export(run, out, dtype, lora, checkpoint)


@app.command()
def memory(
    config: Annotated[Path, typer.Option(help="The run's YAML file.")],
    architecture: Annotated[
        Path | None, typer.Option(help="A pipeline folder instead of the teacher's. Only its JSON files are read.")
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="Number of processes, one to a GPU.")] = 1,
    sharded: Annotated[
        bool, typer.Option("--sharded", help="Split the models over the processes (FSDP2) instead of copying them.")
    ] = False,
) -> None:
    """Estimate the memory that a run needs on each process, and its space on disk, from shapes alone.

    Example: `fourstep distill memory --config distill/configs/sd35m.yaml --processes 8 --sharded`
    """
    with _one_line():
        from distill import config as configuration
        from distill import memory as estimate

        settings = configuration.load(config)
        found = estimate.of_run(settings, architecture, processes, sharded)
        disk = estimate.on_disk(settings, architecture)
        prompts = len(configuration.read_prompts(settings.prompts)) if settings.prompts.is_file() else None
    for name in ("weights", "average", "optimizers", "gradients", "activations", "buckets", "total"):
        if name != "buckets" or found.buckets:
            typer.echo(f"{name:<12}{getattr(found, name) / 2**30:>9.3f} GiB")
    typer.echo("\non disk:")
    typer.echo(f"embeddings  {disk.embeddings / 1e6:>9.3f} MB a prompt")
    if prompts is not None:
        typer.echo(f"            {disk.embeddings * prompts / 1e9:>9.3f} GB for the {prompts} of {settings.prompts}")
    typer.echo(f"checkpoint  {disk.checkpoint / 1e9:>9.3f} GB, of which two are kept and a third is written")
    typer.echo(f"student     {disk.student / 1e9:>9.3f} GB, of which {settings.keep_students} and one more are kept")


@app.command()
def replicate(
    bed: Annotated[
        Literal["mixture", "emoji-small", "emoji"],
        typer.Option(
            help="The setting: mixture takes minutes, emoji-small (exact teacher) hours, emoji (bundled pair) an hour."
        ),
    ] = "mixture",
    out: Annotated[
        Path | None, typer.Option(help="Folder for the results.", show_default="build/replicate/BED")
    ] = None,
    work: Annotated[
        Path, typer.Option(help="For emoji-small: the folder of the artwork, which is fetched if missing.")
    ] = Path("build/emoji"),
    quick: Annotated[
        bool, typer.Option("--quick", help="Run every step in seconds; the figures mean nothing.")
    ] = False,
) -> None:
    """Repeat the paper's comparison at a small scale. Results that the folder already holds are kept.

    Example: `fourstep distill replicate`
    """
    with _one_line():
        from distill.replicate.settings import run_setting

        folder = out or Path("build/replicate") / (f"{bed}-quick" if quick else bed)
        found = run_setting(bed, folder, work, quick)
    signs = {True: "passed", False: "FAILED", None: "-"}
    for setting, gates in found.items():
        typer.echo(f"\n{setting}")
        for gate in gates:
            typer.echo(f"  {signs[gate['passed']]:<7}{gate['name']}: {gate['asked']}; found {gate['found']}")
    typer.echo(f"\n→ {folder}")


def evaluate(
    model: Annotated[Path, typer.Argument(help="The folder to evaluate, sampled as it is served.")],
    teacher: Annotated[Path, typer.Option(help="The folder it is compared with.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for report, grids and kept pictures.")],
    prompts: Annotated[
        Path | None, typer.Option(help="Text file, one prompt a line. Default: the prompts of the emoji world.")
    ] = None,
    protocol: Annotated[
        Literal["own", "paper"],
        typer.Option(help="With paper, measure what the paper's tables report, and print a row like theirs."),
    ] = "own",
    keep_pictures: Annotated[
        bool, typer.Option(help="Keep the pictures for further networks, or only what was measured.")
    ] = True,
    seeds: Annotated[int, typer.Option(min=4, help="Pictures of each prompt.")] = 9,
    features: Annotated[
        list[str], typer.Option(help="Feature space: dino=FOLDER, clip=FOLDER or emoji=FOLDER. May be repeated.")
    ] = [],  # noqa: B006
    scores: Annotated[
        list[str],
        typer.Option(
            help="Score: clipscore, pickscore or imagereward=FOLDER, or NAME=module:factory. May be repeated."
        ),
    ] = [],  # noqa: B006
    geneval: Annotated[Path | None, typer.Option(help="GenEval's evaluation_metadata.jsonl, with its prompts.")] = None,
    detector: Annotated[Path | None, typer.Option(help="Folder of GenEval's Mask2Former.")] = None,
    colors: Annotated[Path | None, typer.Option(help="Folder of GenEval's CLIP.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps of a folder without sampling.json.")] = 30,
    guidance_scale: Annotated[float, typer.Option(min=1, help="Guidance of a folder without sampling.json.")] = 3.5,
) -> None:
    """Compare a student with its teacher: diversity, coverage, quality, prompt match and pairing.

    Example: `fourstep evaluate my-student --teacher models/emoji-teacher -o build/evaluation`
    """
    with _one_line(code=1, command="fourstep"):
        from rich import print_json

        from distill.evaluation import paper
        from distill.evaluation.pictures import Sampling
        from distill.evaluation.report import EvaluationConfig
        from distill.evaluation_run import Request, run

        spaces, judges = _folders("--features", features), _folders("--scores", scores)
        if protocol == "paper":
            paper.check(spaces.keys(), judges.keys(), prompts)
        request = Request(protocol == "paper", prompts, geneval, detector, colors)
        config = EvaluationConfig(seeds, spaces, judges, Sampling(steps, guidance_scale), keep_pictures)
        report = run(model, teacher, request, config, out)
        if report:
            print_json(data=report)


def _folders(option: str, given: list[str]) -> dict[str, Path]:
    """Parse NAME=FOLDER options. Raises ValueError for another form."""
    pairs = [one.partition("=") for one in given]
    for name, sign, folder in pairs:
        if not (name and sign and folder):
            raise ValueError(f"{option}: {name or sign or folder} is not of the form NAME=FOLDER")
    return {name: Path(folder) for name, _, folder in pairs}
