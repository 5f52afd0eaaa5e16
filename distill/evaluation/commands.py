"""`fourstep evaluate`: a student beside its teacher."""

from pathlib import Path
from typing import Annotated

import typer

from jobs.cli import errors_as_lines


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
    with errors_as_lines(ValueError, OSError, extra="distill"):
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


def _folders(option: str, given: list[str]) -> dict[str, Path]:
    """What NAME=FOLDER options say."""
    pairs = [one.partition("=") for one in given]
    for name, sign, folder in pairs:
        if not (name and sign and folder):
            raise ValueError(f"{option}: {name or sign or folder} is not of the form NAME=FOLDER")
    return {name: Path(folder) for name, _, folder in pairs}
