"""`fourstep evaluate` for the emoji world: diversity, coverage, prompt match, quality and pairing, beside the teacher.

Everything is read off the pictures by a frozen encoder that was trained on the artwork, not on any model's samples.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from distill import image_grid
from distill.emoji.encoder import EmojiEncoder, Reading
from distill.emoji.world import EMOJI
from distill.evaluation import metrics, pictures
from distill.evaluation.pictures import PictureSet

SEEDS = tuple(range(1000, 1009))
"""Nine, as in the paper's protocol."""

VAGUE_PROMPTS = (
    "animal", "fruit", "a happy face", "a vehicle", "a flower", "food", "a bird", "a heart",
    "weather", "a sad face", "a monster", "a wild animal", "a vegetable", "a dessert", "a ball", "a plant",
    "a farm animal", "a sea animal", "an insect", "a drink", "a car", "a tree", "the sky", "a cat",
)  # fmt: skip
SURE = 0.5
"""A picture counts as something only when the encoder gives it at least this probability."""


def name_prompts() -> tuple[str, ...]:
    """One for every third emoji, in wordings that no model was trained on."""
    forms = ("an icon of a {}", "one {} please", "the {}", "drawing: {}")
    return tuple(forms[i % len(forms)].format(emoji.names[0]) for i, emoji in enumerate(EMOJI[::3]))


def evaluate(model: Path, teacher: Path, encoder: EmojiEncoder, out: Path) -> dict[str, Any]:
    """Sample both, compare them, write `report.json` and the grids to `out`; returns the report."""
    prompts = (*VAGUE_PROMPTS, *name_prompts())
    ours, theirs = (pictures.make(folder, prompts, SEEDS, out) for folder in (model, teacher))
    for role, made in (("model", ours), ("teacher", theirs)):
        shown = made.flat()[: len(VAGUE_PROMPTS) * len(SEEDS)].numpy()
        image_grid.save_grid(shown, len(SEEDS), out / f"{role}.png")
    our_reading, their_reading = encoder.read(ours.flat()), encoder.read(theirs.flat())
    report = {
        "model": describe(ours, our_reading),
        "teacher": describe(theirs, their_reading),
        "comparison": compare(our_reading, their_reading, ours, theirs),
    }
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    return report


def describe(made: PictureSet, reading: Reading) -> dict[str, Any]:
    """What one model's pictures are worth by themselves."""
    vague = len(VAGUE_PROMPTS)
    match = prompt_match(made.prompts, reading)
    diversity = metrics.pairwise_diversity(_by_prompt(reading.features, made))
    return {
        "sha256": made.sha256,
        "prompt_match": float(match[vague:].mean()),
        "prompt_match_vague": float(match[:vague].mean()),
        "unsure": float((reading.emoji.max(-1).values < SURE).float().mean()),
        "diversity_vague": float(diversity[:vague].mean()),
        "diversity_names": float(diversity[vague:].mean()),
        "vendi_share_vague": float(metrics.vendi_share(_by_prompt(reading.features, made)[:vague]).mean()),
        "distinct_emoji_vague": _distinct(reading.emoji, made, vague),
        "distinct_styles_vague": _distinct(reading.style, made, vague),
    }


def compare(ours: Reading, theirs: Reading, our_set: PictureSet, their_set: PictureSet) -> dict[str, Any]:
    """The model against its teacher, on equal prompts and equal noise."""
    vague = len(VAGUE_PROMPTS)
    our_diversity, their_diversity = (
        metrics.pairwise_diversity(_by_prompt(reading.features, our_set)[:vague]) for reading in (ours, theirs)
    )
    our_match, their_match = (prompt_match(our_set.prompts, reading)[vague:].mean(1) for reading in (ours, theirs))
    pixels = (our_set.flat().float() - their_set.flat().float()).square().mean() / 127.5**2
    return {
        "diversity_ratio_vague": vars(metrics.paired_ratio(our_diversity, their_diversity)),
        "prompt_match_ratio": vars(metrics.paired_ratio(our_match, their_match)),
        "manifolds": vars(metrics.manifolds(theirs.features, ours.features)),
        "kernel_distance": metrics.kernel_distance(theirs.features, ours.features),
        "kernel_distance_floor": metrics.kernel_distance(theirs.features[::2], theirs.features[1::2]),
        "pairing_cosine": float(F.cosine_similarity(ours.features, theirs.features).mean()),
        "pairing_mse": float(pixels),
    }


def prompt_match(prompts: tuple[str, ...], reading: Reading) -> torch.Tensor:
    """Whether each picture surely shows something that its prompt names: float [prompts, seeds], 0 or 1."""
    probability = reading.emoji.view(len(prompts), -1, len(EMOJI))
    fits = torch.stack([_fitting(prompt) for prompt in prompts])
    return ((probability * fits[:, None]).sum(-1) >= SURE).float()


def _fitting(prompt: str) -> torch.Tensor:
    """Which emoji a prompt may mean: 0 or 1 for each, by the longest name or class word that it contains."""
    words = {word for emoji in EMOJI for word in (*emoji.names, *emoji.classes) if f" {word} " in f" {prompt} "}
    longest = max(words, key=len)
    return torch.tensor([float(longest in (*emoji.names, *emoji.classes)) for emoji in EMOJI])


def _by_prompt(features: torch.Tensor, made: PictureSet) -> torch.Tensor:
    return features.view(len(made.prompts), len(made.seeds), -1)


def _distinct(probability: torch.Tensor, made: PictureSet, vague: int) -> float:
    """The mean number of different things among a vague prompt's sure pictures."""
    best = probability.view(len(made.prompts), len(made.seeds), -1)[:vague].max(-1)
    counts = [len(set(kind[sure >= SURE].tolist())) for sure, kind in zip(best.values, best.indices, strict=True)]
    return sum(counts) / len(counts)
