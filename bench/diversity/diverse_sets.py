"""Diverse sets beside plain calls, on the bundled student: how much more diverse, at what cost, how true to the prompt.

`make bench-diverse` writes bench/results/diverse_sets.json and exits with 1 when a target is missed.
"""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

import numpy as np
import torch

from bench import results_file
from distill.emoji.benchmark import VAGUE_PROMPTS, prompt_match
from distill.emoji.encoder import EmojiEncoder
from distill.evaluation.metrics import paired_ratio, pairwise_diversity
from jobs.diversity import diversity_score, pack_layout
from jobs.models import DiverseSet, ImageTask
from jobs.settings import BUNDLED_MODEL
from worker.engine.engine import Engine
from worker.engine.outcomes import Failure, FinishedSet, Measured, Picture
from worker.model_folder import loading

IMAGES, CANDIDATES = 4, 16
FIRST_SEEDS = (20_000, 20_100, 20_200, 20_300)
TARGETS = {"diversity_ratio": 1.2, "score_ratio": 1.2, "prompt_match_ratio": 0.98}
MOST_COST = {"evaluations_ratio": 1.8, "time_ratio": 1.8}


@dataclass
class Side:
    """All pictures of one kind of call, prompt by prompt, and their costs."""

    pixels: list[np.ndarray] = field(default_factory=list)
    latent_descriptors: list[list[str]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    evaluations: int = 0


def main() -> int:
    engine = student()
    random, diverse = Side(), Side()
    for prompt in VAGUE_PROMPTS:
        for seed in FIRST_SEEDS:
            plain = {str(index): bench_task(prompt, seed + index) for index in range(IMAGES)}
            chosen = {"set": bench_task(prompt, seed, DiverseSet(images=IMAGES, candidates=CANDIDATES))}
            make(engine, plain, random)
            make(engine, chosen, diverse)
    report = _report(random, diverse)
    results_file.write("diverse_sets", report)
    print(json.dumps(report, indent=2))
    missed = [name for name, least in TARGETS.items() if report[name]["value"] < least]
    missed += [name for name, most in MOST_COST.items() if report[name] > most]
    print(f"missed: {', '.join(missed)}" if missed else "all targets met")
    return 1 if missed else 0


def student() -> Engine:
    """The bundled student, warm, on one thread of the CPU."""
    torch.set_flush_denormal(True)
    torch.set_num_threads(1)
    engine = Engine(loading.load(str(BUNDLED_MODEL), device="cpu", dtype="float32"), max_batch=8)
    engine.warm_up()
    return engine


def bench_task(prompt: str, seed: int, select: DiverseSet | None = None) -> ImageTask:
    size = {"width": 64, "height": 64}
    return ImageTask(job_id="bench", index=0, prompt=prompt, seed=seed, created=time.time(), select=select, **size)


def make(engine: Engine, tasks: dict[str, ImageTask], side: Side) -> None:
    """Run `tasks` alone on `engine`; add the pictures and their costs to `side`."""

    def count(measured: Measured) -> None:
        if measured.stage == "denoise_step":
            side.evaluations += measured.rows + measured.padding

    engine.runner.measure = count
    pictures: list[Picture] = []
    began = time.perf_counter()
    engine.add(tasks)
    while engine.busy:
        for outcome in engine.step():
            if isinstance(outcome, Failure):
                raise RuntimeError(outcome.detail)
            pictures += outcome.pictures if isinstance(outcome, FinishedSet) else [outcome]
    side.seconds.append(time.perf_counter() - began)
    side.pixels.append(np.stack([picture.pixels for picture in pictures]))
    side.latent_descriptors.append([pack_layout(picture.layout) for picture in pictures])


def _report(random: Side, diverse: Side) -> dict:
    encoder = EmojiEncoder.load(BUNDLED_MODEL.parent / "emoji-encoder")
    diversity, score, match = ([read(side) for side in (diverse, random)] for read in _readings(encoder))
    return {
        "prompts": len(VAGUE_PROMPTS),
        "sets_per_prompt": len(FIRST_SEEDS),
        "images": IMAGES,
        "candidates": CANDIDATES,
        "diversity_of_sets": float(diversity[0].mean()),
        "diversity_of_random_seeds": float(diversity[1].mean()),
        "diversity_ratio": vars(paired_ratio(*diversity)),
        "score_ratio": vars(paired_ratio(*score)),
        "prompt_match_ratio": vars(paired_ratio(*match)),
        "evaluations_ratio": diverse.evaluations / random.evaluations,
        "time_ratio": median(diverse.seconds) / median(random.seconds),
    }


def _readings(encoder: EmojiEncoder) -> Sequence:
    """Three readings of a side, each a mean for each prompt: encoder diversity, served score, prompt match."""

    def by_prompt(values: torch.Tensor) -> torch.Tensor:
        return values.view(len(VAGUE_PROMPTS), -1).mean(1)

    def read(side: Side) -> torch.Tensor:
        return torch.from_numpy(np.concatenate(side.pixels))

    def diversity(side: Side) -> torch.Tensor:
        return by_prompt(pairwise_diversity(encoder.read(read(side)).features.unflatten(0, (-1, IMAGES))))

    def score(side: Side) -> torch.Tensor:
        return by_prompt(torch.tensor([diversity_score(packed) for packed in side.latent_descriptors]))

    def match(side: Side) -> torch.Tensor:
        return prompt_match(VAGUE_PROMPTS, encoder.read(read(side))).mean(1)

    return diversity, score, match


if __name__ == "__main__":
    sys.exit(main())
