"""Every method, both families, both role modes: cache, train, export, load in plain diffusers, serve.

    python docs/examples/every_method.py --out build/every-method

Tiny pipelines of random weights stand in for the teachers, so nothing is fetched and a few minutes of one CPU core are
enough; what is trained means nothing. Against real teachers the same commands take a configuration of
`distill/configs/`.
"""

import json
import sys
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import diffusers
import torch
import typer
import yaml
from PIL import Image
from torch import nn

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # METHODS names this file from there

from fourstep import app  # noqa: E402
from worker.engine.engine import Engine  # noqa: E402
from worker.families import registry  # noqa: E402
from worker.generate import generate  # noqa: E402
from worker.model_folder import loading  # noqa: E402
from worker.testing import tiny_pipelines, tiny_sdxl_pipelines  # noqa: E402

TEACHERS: dict[str, Any] = {"sd3": tiny_pipelines, "sdxl": tiny_sdxl_pipelines}
METHODS: dict[str, dict[str, Any]] = {
    "dp-dmd": {},
    "dp-dmd-nodetach": {},
    "dmd": {},
    "dmd-perceptual": {"perceptual": {"network": "docs.examples.every_method:small_pictures"}},
    "dmd-gan": {},
    "step1-regression": {},
}
ROLES: dict[str, dict[str, Any]] = {"copies": {}, "lora": {"lora_rank": 4}}
SETTINGS: dict[str, dict[str, Any]] = {
    "sd3": {
        "student_grid": {"steps": 4, "shift": 3.0},
        "teacher_grid": {"steps": 6, "shift": 3.0},
        "max_sequence_length": tiny_pipelines.TOKENS,
    },
    "sdxl": {
        "student_grid": {"steps": 4},
        "teacher_grid": {"steps": 6},
        "anchor_target": "x0",
        "norm": "x0",
        "noise_shift": 1.0,
        "noise_range": [0.02, 0.98],
    },
}
COMMON: dict[str, Any] = {
    "batch": 2, "anchor_k": 2, "student_learning_rate": 1e-3, "critic_learning_rate": 1e-3,
    "precision": "no", "compile": False, "log_every": 1,
}  # fmt: skip


def small_pictures() -> nn.Module:
    """The feature network of dmd-perceptual, here the picture itself at an eighth of its size."""
    return nn.AvgPool2d(8)


def main(
    out: Annotated[Path, typer.Option(help="An empty folder for teachers, caches, runs, students and pictures.")],
    steps: Annotated[int, typer.Option(help="Student updates of each run.")] = 2,
    families: Annotated[list[str], typer.Option("--family")] = list(TEACHERS),  # noqa: B006
    methods: Annotated[list[str], typer.Option("--method")] = list(METHODS),  # noqa: B006
) -> None:
    """Run all of it and print a line for each student."""
    started = time.monotonic()
    for family in families:
        teacher, prompts = prepare(family, out)
        for method, roles in product(methods, ROLES):
            folder = out / family / f"{method}-{roles}"
            config = write_config(family, method, roles, steps, teacher, prompts, folder)
            for student in trained(config, folder, lora=roles == "lora"):
                moved, picture = check(student, teacher)
                print(f"{student.relative_to(out)}: weights moved by {moved:.1e}, served as {picture}", flush=True)
    print(f"done in {time.monotonic() - started:.0f} s")


def prepare(family: str, out: Path) -> tuple[Path, Path]:
    """A teacher's folder, and a prompt file whose embeddings are kept beside it, for all runs."""
    teacher, prompts, cache = (out / family / name for name in ("teacher", "prompts.txt", "embeddings"))
    TEACHERS[family].build().save_pretrained(teacher, safe_serialization=True)
    prompts.write_text("\n".join(f"a {colour} {thing}" for colour in ("red", "blue") for thing in ("cat", "sun")))
    tokens = str(tiny_pipelines.TOKENS)
    fourstep(
        "distill", "cache", "--teacher", teacher, "--prompts", prompts, "--out", cache, "--max-sequence-length", tokens
    )
    return teacher, prompts


def write_config(family: str, method: str, roles: str, steps: int, teacher: Path, prompts: Path, folder: Path) -> Path:
    """The YAML file of one run."""
    about = {"family": family, "method": method, "steps": steps, "teacher": str(teacher)}
    about |= {"prompts": str(prompts), "embeddings": str(prompts.parent / "embeddings")}
    critic = {} if method == "step1-regression" else {"critic_updates": 1}
    folder.mkdir(parents=True)
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(about | COMMON | critic | SETTINGS[family] | METHODS[method] | ROLES[roles]))
    return path


def trained(config: Path, folder: Path, lora: bool) -> Iterator[Path]:
    """Train, and export: the student as a whole folder and, for adapters, as a LoRA file, too."""
    run = folder / "run"
    fourstep("distill", "train", "--config", config, "--run", run)
    fourstep("distill", "export", "--run", run, "--out", folder / "student")
    yield folder / "student"
    if lora:
        fourstep("distill", "export", "--run", run, "--out", folder / "student-lora", "--lora")
        yield folder / "student-lora"


def check(student: Path, teacher: Path) -> tuple[float, Path]:
    """Plain diffusers loads the student, whose weights differ from the teacher's by so much at most; the worker's
    engine serves it: a picture comes out."""
    before, after = (denoiser(folder) for folder in (teacher, student))
    moved = max(float((after[name].float() - before[name].float()).abs().max()) for name in before)
    assert moved > 0, f"{student} is its teacher"
    pixels = generate(Engine(loading.load(str(student)), max_batch=1), ["a red cat"], [7])[0]
    assert pixels.std() > 1, f"the picture of {student} is blank"
    Image.fromarray(pixels).save(picture := student.parent / f"{student.name}.png")
    return moved, picture


def denoiser(folder: Path) -> dict[str, torch.Tensor]:
    """The denoiser's weights as plain diffusers loads them; a LoRA file is loaded onto its base and fused."""
    contract = json.loads((folder / "sampling.json").read_text()) if (folder / "sampling.json").exists() else {}
    base = folder / contract["base"] if "base" in contract else folder
    pipeline = diffusers.DiffusionPipeline.from_pretrained(base, use_safetensors=True)
    if base != folder:
        pipeline.load_lora_weights(folder)
        pipeline.fuse_lora()
        pipeline.unload_lora_weights()
    return getattr(pipeline, registry.of(pipeline).denoiser).state_dict()


def fourstep(*arguments: object) -> None:
    """`fourstep …`, in this process: it loads torch once and not for every command."""
    if code := app([str(argument) for argument in arguments], standalone_mode=False):
        raise SystemExit(code)


if __name__ == "__main__":
    typer.run(main)
