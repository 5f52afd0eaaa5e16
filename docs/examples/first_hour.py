"""A lab's first hour in minutes: everything that a run at 1024² goes through, with networks of a few layers.

    python docs/examples/first_hour.py --out build/first-hour

The teacher is a stub with the published sizes of Stable Diffusion 3.5 Medium: latents, embeddings, pictures and the
configuration are those of `distill/configs/sd35m.yaml`, so that whatever breaks by size breaks here, before a GPU is
rented. The steps: memory forecast, prompts encoded by two processes, three updates at 1024² with grid and checkpoint,
`kill -9` in the middle, resume, evaluation of several prompts with nine seeds on two processes, export, a check of the
exported folder. Against a real teacher the same commands take its folder.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
import yaml
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from worker.testing import real_size_pipelines  # noqa: E402

CONFIG = ROOT / "distill/configs/sd35m.yaml"
# What makes a stub's run minutes long; all sizes stay.
QUICK = {
    "steps": 3, "batch": 1, "save_every": 1, "log_every": 1, "precision": "no", "keep_students": 2,
    "critic_updates": 1, "critic_rollouts": 1, "anchor_k": 2, "teacher_grid": {"steps": 4, "shift": 3.0},
}  # fmt: skip
THINGS = ("cat", "dog", "house", "tree", "ship", "bird", "horse", "lamp")
COLOURS = ("red", "blue", "green", "white", "black", "golden", "silver", "purple")


def main(
    out: Annotated[Path, typer.Option(help="An empty folder for all that is made.")],
    prompts: Annotated[int, typer.Option(min=2, max=64, help="Prompts to train and evaluate on.")] = 64,
    seeds: Annotated[int, typer.Option(min=4, help="Pictures of a prompt in the evaluation.")] = 9,
) -> None:
    """Go through all of it and print what each step took."""
    config, run, cache = (out / name for name in ("config.yaml", "run", "embeddings"))
    teacher = timed("a stub teacher", lambda: real_size_pipelines.save("sd3", out / "teacher"))
    texts = [f"a {colour} {thing}" for thing in THINGS for colour in COLOURS][:prompts]
    (out / "prompts.txt").write_text("\n".join(texts) + "\n")
    paths = {"teacher": str(teacher), "prompts": str(out / "prompts.txt"), "embeddings": str(cache)}
    config.write_text(yaml.safe_dump(yaml.safe_load(CONFIG.read_text()) | QUICK | paths))
    distill = ("distill",)
    timed("memory forecast", lambda: together([(*distill, "memory", "--config", config)]))
    encode = (*distill, "cache", "--teacher", teacher, "--prompts", out / "prompts.txt", "--out", cache)
    timed("prompts encoded by two processes", lambda: together([encode, encode]))
    train = (*distill, "train", "--config", config, "--run", run)
    timed("updates until kill -9", lambda: killed_after_a_checkpoint(train, run))
    resume = (*distill, "resume", "--run", run)
    timed("resumed to the end", lambda: together([resume]))
    assert_grid(run / "grid-000003.png")
    export = (*distill, "export", "--run", run, "--out", out / "student", "--checkpoint", "best")
    timed("best student exported", lambda: together([export]))
    evaluate = ("evaluate", out / "student", "--teacher", teacher, "-o", out / "evaluation", "--steps", 4)
    evaluate += ("--prompts", out / "prompts.txt", "--seeds", seeds, "--no-keep-pictures")
    timed(f"{prompts} × {seeds} pictures evaluated by two processes", lambda: together([evaluate, evaluate]))
    timed("models check", lambda: together([("models", "check", out / "student")]))


def timed(what: str, work: object) -> Path:
    """Call `work`, and print how long it took."""
    started = time.monotonic()
    made = work()  # type: ignore[operator]
    print(f"{what}: {time.monotonic() - started:.0f} s", flush=True)
    return made


def start(rank: int, arguments: tuple[object, ...]) -> "subprocess.Popen[bytes]":
    """`fourstep …` as process `rank`, as a launcher starts it, but for the process group, which none of these needs."""
    command = [sys.executable, "-m", "fourstep", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | ({"RANK": str(rank)} if rank else {})
    return subprocess.Popen(command, env=environment, cwd=Path.cwd())


def together(commands: list[tuple[object, ...]]) -> None:
    """Run them at once; exits when one fails."""
    codes = [process.wait() for process in [start(rank, command) for rank, command in enumerate(commands)]]
    if any(codes):
        raise SystemExit(f"exit codes {codes}")


def killed_after_a_checkpoint(command: tuple[object, ...], run: Path) -> None:
    """Kill the training with SIGKILL as soon as its first checkpoint and grid are there."""
    process = start(0, command)
    while not (run / "grid-000001.png").exists():
        if process.poll() is not None:
            raise SystemExit(f"training ended with {process.returncode} before its first checkpoint")
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()


def assert_grid(path: Path) -> None:
    """The grid opens, and its sixty-four pictures are at most 256 pixels wide."""
    with Image.open(path) as grid:
        assert grid.size == (16 * 256, 4 * 256), grid.size


if __name__ == "__main__":
    typer.run(main)
