"""Peak resident memory of training the bundled student: three copies against LoRA roles, each in its own process.

    python -m bench.distill.memory

Of every process: resident memory before the trainer is built (everything imported, one step of a single layer done,
which loads the rest of torch), and the peak while two whole cycles run, the second with the optimisers' sums in place.
The allocator gives large blocks back at once, so that resident memory is allocated memory. Linux only.
"""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
import yaml
from torch.utils.checkpoint import checkpoint

from bench import results_file
from distill import config as configuration
from distill import embedding_cache, memory
from distill.training.trainer import Trainer

CONFIG = Path("distill/configs/emoji.yaml")
RANK = 16
ROLES = {"copies": {}, "lora": {"lora_rank": RANK}}
GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "131072"}
# Neither how often the critic learns nor how far the anchor is changes what is held at once.
QUICK = {"compile": False, "critic_updates": 1, "anchor_k": 1}


def main(child: Annotated[Path | None, typer.Option(hidden=True)] = None) -> None:
    if child:
        print(json.dumps(measure(child)))
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = [compare(Path(folder), checkpointing) for checkpointing in (False, True)]
    results_file.write("distill_memory", {"rank": RANK, "rows": rows})
    for row in rows:
        print(f"gradient checkpointing: {row['gradient_checkpointing']}")
        for name in ROLES:
            found = row[name]
            more = f"{found['above_baseline']:7.1f} more; from shapes {found['from_shapes']:7.1f}"
            print(f"  {name:<7} peak {found['peak']:7.1f} MiB, {more}")
        print(f"  lora / copies: {row['ratio_above_baseline']:.2f} of what is more, {row['ratio_of_peaks']:.2f} in all")


def compare(folder: Path, checkpointing: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"gradient_checkpointing": checkpointing}
    for name, changes in ROLES.items():
        file = folder / f"{name}.yaml"
        settings = yaml.safe_load(CONFIG.read_text()) | QUICK | changes
        settings |= {"gradient_checkpointing": checkpointing, "embeddings": str(folder / "embeddings")}
        file.write_text(yaml.safe_dump(settings))
        config = configuration.load(file)
        prompts = [*configuration.read_prompts(config.prompts), config.negative_prompt]
        # Here, so that the text encoders are never in the measured process.
        embedding_cache.fill(folder / "embeddings", config.teacher, prompts, config.max_sequence_length)
        child = [sys.executable, "-m", "bench.distill.memory", "--child", str(file)]
        done = subprocess.run(child, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | GIVE_BACK)
        found = json.loads(done.stdout.splitlines()[-1])
        by_shapes = memory.of_run(config)
        row[name] = found | {
            "above_baseline": round(found["peak"] - found["baseline"], 1),
            "from_shapes": round(by_shapes.total / 2**20, 1),
            "parts": {part: round(size / 2**20, 1) for part, size in dataclasses.asdict(by_shapes).items()},
        }
    for ratio, of in (("ratio_above_baseline", "above_baseline"), ("ratio_of_peaks", "peak")):
        row[ratio] = round(row["lora"][of] / row["copies"][of], 3)
    return row


def measure(file: Path) -> dict[str, float]:
    """In a process of its own: MiB before the trainer is built, and at most in two cycles."""
    _train_one_layer()
    baseline = _resident("VmRSS")
    with tempfile.TemporaryDirectory() as run:
        trainer = Trainer(configuration.load(file), Path(run))
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak of loading
        for number in (1, 2):
            trainer.cycle(number)
    return {"baseline": baseline, "peak": _resident("VmHWM")}


def _train_one_layer() -> None:
    layer = torch.nn.Linear(8, 8)
    optimizer = torch.optim.AdamW(layer.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        loss = checkpoint(layer, torch.ones(8, 8), use_reentrant=False).sum()
    loss.backward()
    optimizer.step()


def _resident(field: str) -> float:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return round(int(line.split()[1]) / 1024, 1)


if __name__ == "__main__":
    typer.run(main)
