"""Agreement of the served diversity score with the encoder of `fourstep evaluate` on the ranks of sets of images.

`make bench-diverse` writes bench/results/diversity_score.json: Spearman's rank correlation, over single sets of four
images and over the means of prompts, for vague and for specific prompts of the bundled student.
"""

import json

import numpy as np
import torch
from scipy.stats import spearmanr

from bench import results_file
from bench.diversity.diverse_sets import Side, bench_task, make, student
from distill.emoji.benchmark import VAGUE_PROMPTS, prompts
from distill.emoji.encoder import EmojiEncoder
from distill.evaluation.metrics import pairwise_diversity
from jobs.diversity import METRIC, diversity_score
from jobs.settings import BUNDLED_MODEL

IMAGES = 4
FIRST_SEEDS = range(30_000, 30_016, IMAGES)
TEXTS = (*VAGUE_PROMPTS, *prompts()[len(VAGUE_PROMPTS) :: 3])


def main() -> None:
    engine, side = student(), Side()
    for prompt in TEXTS:
        for seed in FIRST_SEEDS:
            make(engine, {str(index): bench_task(prompt, seed + index) for index in range(IMAGES)}, side)
    encoder = EmojiEncoder.load(BUNDLED_MODEL.parent / "emoji-encoder")
    features = encoder.read(torch.from_numpy(np.concatenate(side.pixels))).features.unflatten(0, (-1, IMAGES))
    shape = (len(TEXTS), len(FIRST_SEEDS))
    true = pairwise_diversity(features).view(shape)
    score = torch.tensor([diversity_score(packed) for packed in side.latent_descriptors]).view(shape)
    vague = len(VAGUE_PROMPTS)
    report = {
        "metric": METRIC,
        "images_per_set": IMAGES,
        "sets": true.numel(),
        "spearman_sets": _spearman(score.flatten(), true.flatten()),
        "spearman_prompts": _spearman(score.mean(1), true.mean(1)),
        "spearman_vague_prompts": _spearman(score[:vague].mean(1), true[:vague].mean(1)),
        "spearman_specific_prompts": _spearman(score[vague:].mean(1), true[vague:].mean(1)),
    }
    results_file.write("diversity_score", report)
    print(json.dumps(report, indent=2))


def _spearman(score: torch.Tensor, true: torch.Tensor) -> float:
    return float(spearmanr(score.numpy(), true.numpy()).statistic)


if __name__ == "__main__":
    main()
