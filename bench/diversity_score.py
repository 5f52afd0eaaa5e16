"""Does the diversity score of an answer rank sets of images as `fourstep evaluate`'s encoder does?

`make bench-diverse` writes bench/results/diversity_score.json: Spearman's rank correlation, over single sets of four
images and over the means of prompts, for vague and for specific prompts of the bundled student.
"""

import json
from pathlib import Path

import numpy as np
import torch

from bench.diverse_sets import Side, bench_task, make, student
from distill.emoji.encoder import EmojiEncoder
from distill.evaluation.emoji import VAGUE_PROMPTS, prompts
from distill.evaluation.metrics import pairwise_diversity
from jobs.diversity import METRIC, diversity_score
from jobs.settings import BUNDLED_MODEL

IMAGES = 4
FIRST_SEEDS = range(30_000, 30_016, IMAGES)
ASKED = (*VAGUE_PROMPTS, *prompts()[len(VAGUE_PROMPTS) :: 3])
OUT = Path(__file__).parent / "results" / "diversity_score.json"


def main() -> None:
    engine, side = student(), Side()
    for prompt in ASKED:
        for seed in FIRST_SEEDS:
            make(engine, {str(index): bench_task(prompt, seed + index) for index in range(IMAGES)}, side)
    encoder = EmojiEncoder.load(BUNDLED_MODEL.parent / "emoji-encoder")
    features = encoder.read(torch.from_numpy(np.concatenate(side.pixels))).features.unflatten(0, (-1, IMAGES))
    shape = (len(ASKED), len(FIRST_SEEDS))
    true = pairwise_diversity(features).view(shape)
    score = torch.tensor([diversity_score(latent_descriptors) for latent_descriptors in side.latent_descriptors]).view(
        shape
    )
    vague = len(VAGUE_PROMPTS)
    report = {
        "metric": METRIC,
        "images_per_set": IMAGES,
        "sets": true.numel(),
        "spearman_sets": spearman(score.flatten(), true.flatten()),
        "spearman_prompts": spearman(score.mean(1), true.mean(1)),
        "spearman_vague_prompts": spearman(score[:vague].mean(1), true[:vague].mean(1)),
        "spearman_specific_prompts": spearman(score[vague:].mean(1), true[vague:].mean(1)),
    }
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


def spearman(first: torch.Tensor, second: torch.Tensor) -> float:
    """The correlation of ranks, of [N] and [N] without ties."""
    ranks = torch.stack([values.argsort().argsort().double() for values in (first, second)])
    return float(torch.corrcoef(ranks)[0, 1])


if __name__ == "__main__":
    main()
